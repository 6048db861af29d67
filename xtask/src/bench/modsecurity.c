/* One core, one thread: libmodsecurity without a server. Prints what one transaction through all phases costs, in
 * microseconds of CPU time: least and median. Arguments: the rules, rounds, files of requests. */
#include <modsecurity/modsecurity.h>
#include <modsecurity/rules_set.h>
#include <modsecurity/transaction.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static void quiet(void *data, const void *message) {
    (void)data;
    (void)message;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The next line of a request, ended with NUL. */
static char *line(char **rest) {
    char *begin = *rest, *end = strchr(begin, '\n');
    if (end == NULL) exit(3);
    *end = 0;
    *rest = end + 1;
    return begin;
}

int main(int argc, char **argv) {
    if (argc < 4) return 2;
    int rounds = atoi(argv[2]);
    double *times = calloc(rounds, sizeof *times), begin = now();
    ModSecurity *engine = msc_init();
    msc_set_log_cb(engine, quiet);
    RulesSet *rules = msc_create_rules_set();
    const char *error = NULL;
    if (msc_rules_add_file(rules, argv[1], &error) < 0) {
        fprintf(stderr, "%s\n", error);
        return 1;
    }
    printf("loaded in %.0f ms\n", (now() - begin) / 1e3);
    for (int file = 3; file < argc; file++) {
        static char raw[1 << 20];
        FILE *in = fopen(argv[file], "rb");
        if (in == NULL) return 2;
        size_t length = fread(raw, 1, sizeof raw - 1, in);
        fclose(in);
        raw[length] = 0;
        char *rest = raw, *method = line(&rest), *target = line(&rest), *headers[64];
        int count = 0;
        while (count < 64 && *(headers[count] = line(&rest))) {
            char *value = strstr(headers[count++], ": ");
            if (value == NULL) return 3;
            *value = 0;
        }
        size_t body = length - (rest - raw);
        for (int round = 0; round < rounds; round++) {
            double start = now();
            Transaction *t = msc_new_transaction(engine, rules, NULL);
            msc_process_connection(t, "192.0.2.7", 40000, "192.0.2.1", 443);
            msc_process_uri(t, target, method, "1.1");
            for (int i = 0; i < count; i++)
                msc_add_request_header(t, (unsigned char *)headers[i], (unsigned char *)headers[i] + strlen(headers[i]) + 2);
            msc_process_request_headers(t);
            for (size_t at = 0; at < body; at += 16384)
                msc_append_request_body(t, (unsigned char *)rest + at, body - at < 16384 ? body - at : 16384);
            msc_process_request_body(t);
            msc_add_response_header(t, (unsigned char *)"Content-Type", (unsigned char *)"application/json");
            msc_process_response_headers(t, 200, "HTTP 1.1");
            msc_process_response_body(t);
            msc_process_logging(t);
            msc_transaction_cleanup(t);
            times[round] = now() - start;
        }
        qsort(times, rounds, sizeof *times, ascending);
        char *name = strrchr(argv[file], '/');
        printf("%s %.1f %.1f\n", name ? name + 1 : argv[file], times[0], times[rounds / 2]);
    }
    return 0;
}
