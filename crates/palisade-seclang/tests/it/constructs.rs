//! Everything that the Core Rule Set's versions 3 and 4 use of the language, each with a rule in their style and the
//! request that tells whether it means what it should: with the short cuts and without.

use std::sync::Arc;

use palisade_seclang::{Builder, RuleSet, Transaction};

use crate::support;

const ENGINE: &str = "SecRuleEngine DetectionOnly\nSecRequestBodyAccess On\nSecResponseBodyAccess On\n";

fn compile(rules: &str, reference: bool) -> Arc<RuleSet> {
    let mut builder = Builder::new();
    builder.texts_only().text("engine.conf", ENGINE).text("rules.conf", rules);
    if reference {
        builder.reference();
    }
    let compiled = builder.compile();
    Arc::new(compiled.unwrap_or_else(|p| panic!("{rules}\n{}", p.iter().map(ToString::to_string).collect::<String>())))
}

/// The transaction after a request. With and without short cuts the same rules match.
fn run(rules: &str, raw: &[u8]) -> Transaction {
    let [slow, mut fast] = [true, false].map(|reference| {
        let mut transaction = Transaction::new(&compile(rules, reference));
        support::run(&mut transaction, raw);
        transaction
    });
    // Of all variables only the time differs from run to run.
    let same = |t: &Transaction| t.matches().iter().filter(|m| m.target != "DURATION").cloned().collect::<Vec<_>>();
    assert!(same(&slow) == same(&fast), "{rules}");
    assert_eq!(slow.would_be(), fast.would_be(), "{rules}");
    fast.logging();
    slow
}

fn found(rules: &str, raw: &[u8]) -> Vec<u64> {
    run(rules, raw).matches().iter().map(|found| found.rule).collect()
}

/// Rules `VARIABLES "OPERATOR" "ACTIONS"`, one a line and numbered from 1; those whose line begins with `-` do not match.
fn check(rules: &str, raw: &[u8]) {
    let lines: Vec<&str> = rules.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let mut text = String::new();
    let mut wanted = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let id = at as u64 + 1;
        let (rule, matches) = match line.strip_prefix('-') {
            Some(rule) => (rule.trim_start(), false),
            None => (*line, true),
        };
        // The last quoted word is the actions; where there is none but the operator, there are none.
        let with_actions = rule.matches('"').count() >= 4;
        let (head, actions) = match with_actions {
            true => {
                let cut = rule.trim_end().trim_end_matches('"').rfind('"').unwrap();
                (&rule[..cut], rule[cut..].trim_matches('"').to_owned() + ",")
            }
            false => (rule, String::new()),
        };
        let phase = if actions.contains("phase:") { "" } else { "phase:2," };
        text.push_str(&format!("SecRule {head} \"{actions}{phase}id:{id},pass,log\"\n"));
        if matches {
            wanted.push(id);
        }
    }
    let got = found(&text, raw);
    for (at, line) in lines.iter().enumerate() {
        let id = at as u64 + 1;
        assert_eq!(got.contains(&id), wanted.contains(&id), "{line}");
    }
}

fn request(head: &str, body: &str) -> Vec<u8> {
    format!("{}\r\n\r\n{body}", head.replace('\n', "\r\n")).into_bytes()
}

#[test]
fn variables_of_a_request_with_a_form() {
    let raw = request(
        "POST /dir/pa%67e.php?a=1&b=%32+x&a=3 HTTP/1.1\nHost: h.example\nCookie: s=1; __utma=2; t=3\nAuthorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\nX-One: one\nX-Two: two\nContent-Type: application/x-www-form-urlencoded",
        "c=4&d=5",
    );
    check(
        r##"
        ARGS:a "@streq 3"
        ARGS:A "@streq 1"
        ARGS:c "@streq 4"
        -ARGS:e "@rx ."
        ARGS_NAMES "@streq d"
        ARGS_NAMES:/^[cd]$/ "@streq c"
        ARGS_GET:b "@streq 2 x"
        -ARGS_GET "@streq 4"
        ARGS_GET_NAMES "@streq b"
        -ARGS_GET_NAMES "@streq c"
        ARGS_POST "@streq 4"
        ARGS_POST_NAMES "@streq d"
        ARGS_COMBINED_SIZE "@eq 12"
        REQUEST_COOKIES:s "@streq 1"
        REQUEST_COOKIES:/__utm/ "@streq 2"
        REQUEST_COOKIES_NAMES "@streq t"
        -REQUEST_COOKIES|!REQUEST_COOKIES:/__utm/ "@streq 2"
        -REQUEST_COOKIES|!REQUEST_COOKIES:__UTMA "@streq 2"
        REQUEST_HEADERS:host "@streq h.example"
        REQUEST_HEADERS_NAMES "@streq Content-Type"
        REQUEST_HEADERS:/^x-/ "@streq two"
        -REQUEST_HEADERS|!REQUEST_HEADERS:/^X-/ "@streq two"
        REQUEST_FILENAME "@streq /dir/page.php"
        REQUEST_BASENAME "@streq page.php"
        REQUEST_URI "@streq /dir/pa%67e.php?a=1&b=%32+x&a=3"
        REQUEST_URI_RAW "@streq /dir/pa%67e.php?a=1&b=%32+x&a=3"
        PATH_INFO "@streq /dir/page.php"
        AUTH_TYPE "@streq Basic"
        REMOTE_USER "@streq Aladdin"
        REQUEST_LINE "@streq POST /dir/pa%67e.php?a=1&b=%32+x&a=3 HTTP/1.1"
        REQUEST_METHOD "@streq POST"
        REQUEST_PROTOCOL "@streq HTTP/1.1"
        REQUEST_BODY "@streq c=4&d=5"
        REQUEST_BODY_LENGTH "@eq 7"
        QUERY_STRING "@streq a=1&b=%32+x&a=3"
        REQBODY_PROCESSOR "@streq URLENCODED"
        REQBODY_ERROR "@eq 0"
        REMOTE_ADDR "@streq 127.0.0.1"
        UNIQUE_ID "@streq 0123456789"
        DURATION "@ge 0"
        &ARGS "@eq 5"
        &ARGS:a "@eq 2"
        &ARGS:nope "@eq 0"
        &REQUEST_HEADERS:/^x-/ "@eq 2"
        &REQUEST_COOKIES "@eq 3"
        &TX:nothing "@eq 0"
        -&ARGS:a "@eq 0"
        RESPONSE_STATUS "@streq 200" "phase:3"
        RESPONSE_HEADERS:content-type "@streq text/html" "phase:3"
        RESPONSE_HEADERS "@contains html" "phase:3"
        RESPONSE_BODY "@contains c=4" "phase:4"
        -RESPONSE_BODY "@contains c=4" "phase:3"
        -ARGS_POST:c "@streq 4" "phase:1"
        ARGS_GET:a "@streq 1" "phase:1"
        "##,
        &raw,
    );
}

#[test]
fn variables_of_other_bodies() {
    let json = request(
        "POST / HTTP/1.1\nContent-Type: application/json",
        r#"{"a":{"b":["x",true,{"c":1.5}]},"profile1":null,"":"empty"}"#,
    );
    check(
        r##"
        ARGS:json.a.b.array_0 "@streq x"
        ARGS:json.a.b.array_1 "@streq true"
        ARGS:json.a.b.array_2.c "@streq 1.5"
        ARGS:json. "@streq empty"
        -ARGS_NAMES|!ARGS_NAMES:/^json\.profile\w+/ "@contains profile"
        ARGS_NAMES|!ARGS_NAMES:json.profile "@contains profile"
        REQBODY_PROCESSOR "@streq JSON"
        -REQUEST_BODY "@rx ."
        "##,
        &json,
    );
    let xml = request("POST / HTTP/1.1\nContent-Type: text/xml", "<a b=\"one\"><c d='two'>x<!-- no --></c>y</a>");
    check(
        r##"
        XML:/* "@streq xy"
        XML://@* "@streq one"
        XML://@* "@streq two"
        REQBODY_PROCESSOR "@streq XML"
        -XML:/* "@contains no"
        &XML:/* "@eq 1"
        "##,
        &xml,
    );
    let multipart = request(
        "POST / HTTP/1.1\nContent-Type: multipart/form-data; boundary=b",
        "--b\r\nContent-Disposition: form-data; name=\"_charset_\"\r\n\r\nutf-7\r\n--b\r\nContent-Disposition: form-data; name=\"up\"; filename=\"a;b.php\"\r\nContent-Type: Text/HTML\r\n\r\n12345\r\n--b--\r\n",
    );
    check(
        r##"
        ARGS:_charset_ "@streq utf-7"
        FILES "@streq a;b.php"
        FILES:up "@endsWith .php"
        FILES_NAMES "@streq up"
        FILES_COMBINED_SIZE "@eq 5"
        FILES|FILES_NAMES "!@rx (?i)^(?:&(?:nbsp|amp);|[^\"';=\x5c])*$"
        &MULTIPART_PART_HEADERS:_charset_ "!@eq 0"
        MULTIPART_PART_HEADERS "@rx ^content-type\s*:\s*(.*)$" "t:lowercase"
        MULTIPART_PART_HEADERS:up "@streq Content-Type: Text/HTML"
        -MULTIPART_PART_HEADERS "@rx [\r\n]"
        -MULTIPART_STRICT_ERROR "@eq 1"
        REQBODY_PROCESSOR "@streq MULTIPART"
        "##,
        &multipart,
    );
}

#[test]
fn operators() {
    let raw = request(
        "GET /?n=7&s=one+two&u=%25zz&b=%01&e=&f=%E2%80%9C&g=%ff&q=1%27+or+1%3D1--+&x=%3Cscript%3Ealert(1)%3C/script%3E&p=a/etc/passwd HTTP/1.1\nHost: www.example.com:80",
        "",
    );
    check(
        r##"
        ARGS:n "@eq 7"
        ARGS:n "@ge 7"
        -ARGS:n "@gt 7"
        ARGS:n "@lt 8"
        ARGS:n "@le 7"
        -ARGS:n "!@eq 7"
        ARGS:s "@streq one two"
        -ARGS:s "@streq one"
        ARGS:s "one"
        ARGS:s "!two one"
        ARGS:s "@contains e t"
        ARGS:s "@beginsWith one"
        -ARGS:s "@beginsWith two"
        ARGS:s "@endsWith two"
        ARGS:s "@within zero one two three"
        -ARGS:s "@within one"
        ARGS:s "!@within one"
        ARGS:e "@within one"
        ARGS:s "@pm TWO three"
        ARGS:p "@pm boot.ini etc/passwd"
        -ARGS:s "@pm three"
        ARGS:s "@pm |6f 6e|e"
        REMOTE_ADDR "@ipMatch 10.0.0.0/8,127.0.0.0/8"
        -REMOTE_ADDR "@ipMatch ::1,10.0.0.1"
        -ARGS:s "@validateByteRange 32-126"
        ARGS:b "@validateByteRange 32-36,38-126"
        ARGS:u "@validateUrlEncoding"
        -ARGS:s "@validateUrlEncoding"
        ARGS:g "@validateUtf8Encoding"
        -ARGS:f "@validateUtf8Encoding"
        ARGS:q "@detectSQLi"
        -ARGS:s "@detectSQLi"
        ARGS:x "@detectXSS"
        -ARGS:q "@detectXSS"
        ARGS:s "@unconditionalMatch"
        -ARGS:s "@noMatch"
        ARGS:e "@rx ^$"
        -ARGS:nope "@rx ^$"
        ARGS:e "@eq 0"
        REQUEST_HEADERS:Host "@rx (?:^|\.)example\.com(?::\d+)?$"
        "##,
        &raw,
    );
}

/// Rules that are evaluated where a search through all of them at once finds something: it reads base64 for each kind.
#[test]
fn what_is_found_in_base64() {
    for (rule, sent) in [
        ("@detectSQLi", "MScgb3IgJzEnPScx"),
        ("@detectXSS", "PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg"),
        ("@validateByteRange 32-126", "AA"),
        ("@validateByteRange 32-126", "YWJjAWRlZg"),
        ("@rx <script", "PHNjcmlwdD4"),
        ("@pm <script", "PHNjcmlwdD4"),
    ] {
        let raw = request(&format!("GET /?q={sent}&r=hello HTTP/1.1"), "");
        check(&format!("ARGS:q \"{rule}\" \"t:none,t:base64Decode\""), &raw);
        check(&format!("ARGS:q \"{rule}\" \"t:none,t:base64Decode,t:utf8toUnicode\""), &raw);
        check(&format!("ARGS:q \"{rule}\" \"t:none,t:base64Decode,multiMatch\""), &raw);
    }
}

#[test]
fn transformations() {
    // What each undoes, between what it leaves alone.
    for (chain, sent, seen) in [
        ("urlDecode", "a%2541%252", "aA%2"),
        ("urlDecodeUni", "%2541%25uff1c%25u0042+", "A<B "),
        ("lowercase", "AbC", "abc"),
        ("htmlEntityDecode", "%26lt;%26%23x41;%26%2366%26nbsp%26nope;", "<AB\u{a0}&nope;"),
        ("utf8toUnicode", "%C2%B4a", "%u00b4a"),
        ("removeNulls", "a%00b", "ab"),
        ("jsDecode", "%5Cu0041%5Cx42%5C103%5Cn", "ABC\n"),
        ("cssDecode", "%5C41 b%5C000042%5C%0Ac", "AbBc"),
        ("cmdLine", "C^mD%22+%2Fx,;y", "cmd/x y"),
        ("compressWhitespace", "a%09%0A++b", "a b"),
        ("removeWhitespace", "a%09%0A++b", "ab"),
        ("normalizePath", "/a/./b/../c//d", "/a/c/d"),
        ("normalisePath", "/a/../b", "/b"),
        ("normalizePathWin", "%5Ca%5C..%5Cb", "/b"),
        ("sha1,t:hexEncode", "abc", "a9993e364706816aba3e25717850c26c9cd0d89d"),
        ("hexEncode", "abc", "616263"),
        ("length", "abcdefghijkl", "12"),
        ("replaceComments", "a/*x*/b/*", "a b "),
        ("base64Decode", "PHNjcmlwdD4", "<script>"),
        ("escapeSeqDecode", "%5Cx41%5C102%5Ct%5Cq", "AB\tq"),
        ("removeCommentsChar", "a/*b*/c--d%23e%3C!--f--%3E", "abcdef"),
        ("none", "%2541", "%41"),
        ("lowercase,t:none", "AbC", "AbC"),
        ("urlDecodeUni,t:urlDecodeUni", "%25252541", "%41"),
    ] {
        let raw = request(&format!("GET /?v={sent} HTTP/1.1"), "");
        let bytes: String = seen
            .chars()
            .flat_map(|c| if c == '\u{a0}' { vec![0xa0] } else { c.to_string().into_bytes() })
            .map(|b| format!("\\x{b:02x}"))
            .collect();
        check(&format!("ARGS:v \"@rx ^{bytes}$\" \"t:none,t:{chain}\""), &raw);
        check(&format!("ARGS:v \"!@rx ^{bytes}.$\" \"t:none,t:{chain},multiMatch\""), &raw);
    }
    // Every stage that changes the value is looked at, and only with `multiMatch`.
    let raw = request("GET /?v=%2541B HTTP/1.1", "");
    check(
        r##"
        ARGS:v "@streq %41B" "t:none,t:urlDecode,t:lowercase,multiMatch"
        ARGS:v "@streq AB" "t:none,t:urlDecode,t:lowercase,multiMatch"
        ARGS:v "@streq ab" "t:none,t:urlDecode,t:lowercase,multiMatch"
        -ARGS:v "@streq AB" "t:none,t:urlDecode,t:lowercase"
        ARGS:v "@streq ab" "t:none,t:urlDecode,t:lowercase"
        "##,
        &raw,
    );
}

#[test]
fn patterns_of_pcre() {
    let query = "a=%BCscript&b=aaab&c=%7B%7B7%7D%7D&d=x%0Ay&e=%C2%B4&f=%5B%5D&g=a-b&h=k%0Bl&i=%24%7Bjndi&j=tab%09&k=%5Cx&l=AbC&m=word";
    let raw = request(&format!("GET /?{query} HTTP/1.1"), "");
    check(
        r##"
        ARGS:a "@rx (?i)[<\xbc]SCRIPT"
        ARGS:a "@rx \x{bc}s"
        ARGS:a "@rx [\x{a0}-\x{c0}]script"
        ARGS:b "@rx ^a*+b$"
        ARGS:b "@rx ^a++b"
        ARGS:b "@rx ^(?:aa)?+a{1,2}+b"
        ARGS:b "@rx ^a{3}b"
        -ARGS:b "@rx ^a{4}"
        ARGS:c "@rx {{.*?}}"
        ARGS:c "@rx \{{2}\d\}{2}"
        ARGS:d "@rx x.y"
        ARGS:d "@rx ^y$"
        ARGS:d "@rx [\n\r]"
        ARGS:d "@rx \Ax[\s\S]+\z"
        -ARGS:d "@rx \Ay"
        ARGS:e "@rx [´’‘]"
        ARGS:f "@rx []\[]"
        ARGS:f "@rx (][^\]]*$)"
        ARGS:f "@rx [[\]]{2}"
        ARGS:g "@rx [\--9a]-b"
        ARGS:g "@rx ^[a-c\-]+$"
        ARGS:h "@rx k[\s\x0b]+l"
        ARGS:h "@rx k\vl"
        -ARGS:i "@rx ${jndi"
        ARGS:i "@rx \$\{(?:[^}]*:)?jndi"
        ARGS:j "@rx [[:space:]]$"
        ARGS:k "@rx [\x5c/]x"
        ARGS:k "@rx ^[^\w]x"
        ARGS:l "@rx (?i:abc)"
        ARGS:l "@rx (?i)a(?-i:b)c"
        -ARGS:l "@rx abc"
        ARGS:m "@rx \bword\b"
        -ARGS:m "@rx \Bword"
        ARGS:m "@rx w(?:x|o)(?P<name>r)(?#comment)d"
        ARGS:m "@rx ^(?!.*x)w"
        ARGS:m "@rx (?<=wo)rd"
        ARGS:b "@rx (a)\1\1b"
        ARGS:m "@rx (?>wo)rd"
        ARGS:m "@rx [&&~~+--w]ord"
        "##,
        &raw,
    );
}

#[test]
fn setvar_macros_and_chains() {
    let raw = request(
        "POST /?a=AB&url=http://evil.example/x&a=x HTTP/1.1\nHost: good.example\nUser-Agent: agent\nX-Any: 5",
        "",
    );
    let transaction = run(
        r##"
SecRule &TX:threshold "@eq 0" "id:1,phase:1,pass,nolog,setvar:'tx.threshold=5',setvar:tx.flag,setvar:tx.gone=1,setvar:!tx.gone"
SecAction "id:2,phase:1,pass,nolog,setvar:tx.score=+%{tx.threshold},setvar:tx.score=+2,setvar:tx.score=-1,setvar:'tx.text=%{REQUEST_HEADERS.User-Agent} %{remote_addr} %{tx.Score}'"
SecRule ARGS:a "@rx ^(.)(.)$" "id:3,phase:1,pass,log,capture,t:lowercase,msg:'%{TX.0} %{TX.1}-%{tx.2} %{MATCHED_VAR} %{MATCHED_VAR_NAME} %{RULE.id}',logdata:'%{request_line} %{ARGS.a}',setvar:'tx.seen_%{MATCHED_VAR_NAME}=%{tx.1}',tag:'t/%{tx.2}'"
SecRule TX:/^seen_/ "@streq a" "id:4,phase:1,pass,log,msg:'%{MATCHED_VAR_NAME}'"
SecRule ARGS:url "@rx ^https?://([^/]+)" "id:5,phase:1,pass,log,capture,chain,setvar:'tx.rfi_parameter_%{MATCHED_VAR_NAME}=.%{tx.1}'"
    SecRule TX:/rfi_parameter_.*/ "!@endsWith .%{request_headers.host}" "setvar:'tx.rfi=+%{tx.threshold}'"
SecRule TX:SCORE "@ge %{tx.threshold}" "id:6,phase:1,pass,log"
SecRule TX:score "@lt %{REQUEST_HEADERS.x-any}" "id:7,phase:1,pass,log"
SecRule REQUEST_METHOD "!@within %{tx.allowed}" "id:8,phase:1,pass,log"
SecRule ARGS:a "@rx ^(?i:%{ARGS.a})$" "id:9,phase:1,pass,log"
SecRule ARGS "@rx ." "id:10,phase:2,pass,nolog,setvar:'tx.count=+1',chain"
    SecRule MATCHED_VARS "@rx ^[A-Z]+$" "setvar:tx.upper=+1,chain"
        SecRule MATCHED_VARS_NAMES "@streq ARGS:a" "setvar:tx.names=+1"
SecRule TX:upper "@eq 1" "id:11,phase:2,pass,log"
SecRule TX:count|TX:upper "@eq 3" "id:12,phase:2,pass,log,msg:'%{MATCHED_VAR_NAME}'"
SecRule ARGS:a "@streq AB" "id:13,phase:2,pass,log,chain,skipAfter:END"
    SecRule ARGS:a "@streq no"
SecRule TX:gone "@rx ." "id:14,phase:2,pass,log"
SecRule &TX:flag "@eq 1" "id:15,phase:2,pass,log,skipAfter:END"
SecAction "id:16,phase:2,pass,log"
SecMarker "END"
SecAction "id:17,phase:5,pass,log,msg:'%{tx.rfi}'"
"##,
        &raw,
    );
    let ids: Vec<u64> = transaction.matches().iter().map(|found| found.rule).collect();
    assert_eq!(ids, [3, 4, 5, 6, 8, 9, 11, 12, 15, 17]);
    let text = |at: usize| transaction.matches()[at].message.as_str();
    assert_eq!(text(0), "ab a-b ab ARGS:a 3");
    assert!(transaction.matches()[0].data.starts_with("POST /?a=AB&url"));
    assert_eq!(transaction.matches()[0].tags, ["t/b"]);
    assert_eq!(text(1), "TX:seen_ARGS:a");
    assert_eq!(text(9), "5");
    assert_eq!(transaction.tx("score"), Some(&b"6"[..]));
    assert_eq!(transaction.tx("text"), Some(&b"agent 127.0.0.1 6"[..]));
    assert_eq!(transaction.tx("flag"), Some(&b"1"[..]));
    // Each value that matches a link does what the link says.
    assert_eq!((transaction.tx("count"), transaction.tx("upper")), (Some(&b"3"[..]), Some(&b"1"[..])));
}

#[test]
fn skip_counts_rules_as_they_are_written() {
    let get = request("GET /?a=1 HTTP/1.1", "");
    let every = |ids: std::ops::Range<u64>| -> String {
        ids.map(|id| format!("SecRule REQUEST_METHOD \"@streq GET\" \"id:{id},phase:2,pass,log\"\n")).collect()
    };
    for (many, first) in [(0, 2), (1, 3), (6, 8), (7, 9), (1000, 9)] {
        let rules = format!("SecAction \"id:1,phase:2,pass,nolog,skip:{many}\"\n{}", every(2..9));
        assert_eq!(found(&rules, &get), (first..9).collect::<Vec<u64>>(), "skip:{many}");
    }
    let skips = "SecRule ARGS:a \"@streq 1\" \"id:1,phase:2,pass,nolog,skip:1\"";
    for one in [
        // It never matches, so the short cuts leave it out.
        "SecRule TX:never \"@eq 1\" \"id:2,phase:2,deny,log\"",
        "SecRule ARGS:a \"@streq 1\" \"id:2,phase:2,pass,log,chain\"\n SecRule ARGS:a \"@streq 1\"",
        "SecAction \"id:2,phase:2,pass,log\"\nSecRuleRemoveById 2",
        "SecAction \"id:9,phase:1,pass,nolog\"\nSecMarker HERE\nSecAction \"id:2,phase:2,pass,log\"",
    ] {
        assert_eq!(found(&format!("{skips}\n{one}\n{}", every(3..5)), &get), [3, 4], "{one}");
    }
}

#[test]
fn removals_and_updates() {
    let rules = r#"
SecRule ARGS|ARGS_NAMES|REQUEST_COOKIES|XML://@* "@rx bad" "id:100,phase:2,pass,log,tag:'OWASP_CRS',tag:'attack-sqli',msg:'SQL found'"
SecRule ARGS|ARGS_NAMES|REQUEST_COOKIES "@rx bad" "id:200,phase:2,pass,log,tag:'OWASP_CRS',tag:'attack-xss',msg:'XSS found'"
SecRule &ARGS:x "@eq 1" "id:300,phase:2,pass,log"
"#;
    for (update, sent, wanted) in [
        ("", "GET /?x=bad", &[100, 200, 300][..]),
        ("SecRuleRemoveById 100", "GET /?x=bad", &[200, 300]),
        ("SecRuleRemoveById 100 200", "GET /?x=bad", &[300]),
        ("SecRuleRemoveById \"100-250,300\"", "GET /?x=bad", &[]),
        ("SecRuleRemoveByTag \"attack-(?:xss|lfi)\"", "GET /?x=bad", &[100, 300]),
        ("SecRuleRemoveByMsg \"SQL\"", "GET /?x=bad", &[200, 300]),
        ("SecRuleUpdateTargetById 100 \"!ARGS:x\"", "GET /?x=bad", &[200, 300]),
        ("SecRuleUpdateTargetById 100 !ARGS:x", "GET /?x=bad", &[200, 300]),
        ("SecRuleUpdateTargetById 100-200 \"!ARGS:/^X$/\"", "GET /?x=bad", &[300]),
        ("SecRuleUpdateTargetById 100 \"!ARGS:x,!ARGS:y\"", "GET /?y=bad", &[200]),
        ("SecRuleUpdateTargetById 100 \"!ARGS:x|!ARGS:y\"", "GET /?y=bad", &[200]),
        ("SecRuleUpdateTargetById 100 \"!ARGS\"", "GET /?y=bad", &[200]),
        (
            "SecRuleUpdateTargetById 100 \"!REQUEST_COOKIES:/^_ga(?:_\\w+)?$/\"",
            "GET /?y=1 HTTP/1.1\nCookie: _ga_A1=bad",
            &[200],
        ),
        (
            "SecRuleUpdateTargetById 100 \"!REQUEST_COOKIES:/^_ga(?:_\\w+)?$/\"",
            "GET /?y=1 HTTP/1.1\nCookie: x_ga=bad",
            &[100, 200],
        ),
        ("SecRuleUpdateTargetById 100 \"!REQUEST_COOKIES:__gads\"", "GET /?y=1 HTTP/1.1\nCookie: __gads=bad", &[200]),
        ("SecRuleUpdateTargetByTag \"OWASP_CRS\" \"!ARGS:y\"", "GET /?y=bad", &[]),
        ("SecRuleUpdateTargetByMsg \"XSS found\" \"!ARGS_NAMES:/bad/\"", "GET /?bad=1", &[100]),
        ("SecRuleUpdateTargetById 100 \"REQUEST_HEADERS:X-A\"", "GET /?y=1 HTTP/1.1\nX-A: bad", &[100]),
        ("SecRuleUpdateActionById 100 \"nolog\"", "GET /?x=bad", &[200, 300]),
        ("SecAction \"id:1,phase:1,pass,nolog,ctl:ruleRemoveById=100\"", "GET /?x=bad", &[200, 300]),
        ("SecAction \"id:1,phase:1,pass,nolog,ctl:ruleRemoveById=100-299\"", "GET /?x=bad", &[300]),
        ("SecAction \"id:1,phase:1,pass,nolog,ctl:ruleRemoveByTag=OWASP_CRS\"", "GET /?x=bad", &[300]),
        ("SecAction \"id:1,phase:1,pass,nolog,ctl:ruleRemoveByMsg=SQL\"", "GET /?x=bad", &[200, 300]),
        (
            "SecAction \"id:1,phase:1,pass,nolog,ctl:ruleRemoveTargetById=100;ARGS:x,ctl:ruleRemoveTargetById=300;ARGS:x\"",
            "GET /?x=bad",
            &[200],
        ),
        ("SecAction \"id:1,phase:1,pass,nolog,ctl:ruleRemoveTargetById=100-200;ARGS:/^x/\"", "GET /?x1=bad", &[]),
        (
            "SecAction \"id:1,phase:1,pass,nolog,ctl:ruleRemoveTargetById=100;XML://@*\"",
            "GET /?x=bad",
            &[100, 200, 300],
        ),
        ("SecAction \"id:1,phase:1,pass,nolog,ctl:ruleRemoveTargetByTag=attack-xss;ARGS\"", "GET /?x=bad", &[100, 300]),
        ("SecAction \"id:1,phase:1,pass,nolog,ctl:ruleRemoveTargetByTag=OWASP_CRS;ARGS:pwd\"", "GET /?pwd=bad", &[]),
        ("SecAction \"id:1,phase:1,pass,nolog,ctl:ruleRemoveTargetByMsg=SQL;ARGS:x\"", "GET /?x=bad", &[200, 300]),
        ("SecAction \"id:1,phase:1,pass,nolog,ctl:ruleEngine=Off\"", "GET /?x=bad", &[]),
        (
            "SecRule ARGS:x \"@rx .\" \"id:1,phase:2,pass,nolog,ctl:ruleRemoveById=100,ctl:auditEngine=Off,ctl:auditLogParts=+E\"",
            "GET /?x=bad",
            &[200, 300],
        ),
    ] {
        let raw = request(&if sent.contains("HTTP/") { sent.to_owned() } else { format!("{sent} HTTP/1.1") }, "");
        // `ctl` stands before the rules that it removes, the directives behind them.
        let text = if update.starts_with("SecRule ") || update.starts_with("SecAction") {
            format!("{update}\n{rules}")
        } else {
            format!("{rules}\n{update}")
        };
        assert_eq!(found(&text, &raw), wanted, "{update}: {sent}");
    }
}

#[test]
fn variables_of_tx_are_left_out_by_name() {
    let twice = "SecRule ARGS_NAMES \"@rx .\" \"id:2,phase:2,pass,nolog,setvar:'TX.paramcounter_%{MATCHED_VAR_NAME}=+1'\"\n\
        SecRule TX:/paramcounter_.*/ \"@gt 1\" \"id:3,phase:2,pass,log,tag:'OWASP_CRS'\"\n";
    let flag = "SecRule TX:flag \"@eq 1\" \"id:4,phase:2,pass,log\"\n";
    let raw = request("GET /?a=1&a=2 HTTP/1.1", "");
    for (update, wanted) in [
        ("", &[3, 4][..]),
        (",ctl:ruleRemoveTargetById=3;TX:paramcounter_ARGS_NAMES:a", &[4]),
        (",ctl:ruleRemoveTargetById=3;TX:paramcounter_ARGS_NAMES:b", &[3, 4]),
        (",ctl:ruleRemoveTargetByTag=OWASP_CRS;TX:PARAMCOUNTER_args_names:A", &[4]),
        (",ctl:ruleRemoveTargetById=4;TX:flag", &[3]),
        ("SecRuleUpdateTargetById 3-4 \"!TX:paramcounter_ARGS_NAMES:a,!TX:Flag\"", &[]),
    ] {
        let (ctl, line) = if update.starts_with(',') { (update, "") } else { ("", update) };
        let text = format!("SecAction \"id:1,phase:1,pass,nolog,setvar:tx.flag=1{ctl}\"\n{twice}{flag}{line}\n");
        assert_eq!(found(&text, &raw), wanted, "{update}");
    }
    for (targets, matches) in [
        ("TX", true),
        ("TX|!TX:x_b", true),
        ("TX|!TX:x_a", false),
        ("TX:x_a|!TX:X_A", false),
        ("TX:/^x_/|!TX:x_a", false),
        ("&TX:/^x_/|!TX:x_b", true),
    ] {
        let text = format!(
            "SecAction \"id:1,phase:1,pass,nolog,setvar:tx.x_a=1,setvar:tx.x_b=2\"\nSecRule {targets} \"@streq 1\" \"id:2,phase:2,pass,log\""
        );
        assert_eq!(!found(&text, &raw).is_empty(), matches, "{targets}");
    }
}

#[test]
fn variables_of_tx_are_named_as_they_were_written_first() {
    let transaction = run(
        "SecAction \"id:1,phase:1,pass,nolog,setvar:tx.Foo=good,setvar:tx.bar=bad\"\n\
         SecRule TX:FOO|TX:BAR \"@streq bad\" \"id:2,phase:1,pass,log,msg:'%{MATCHED_VAR_NAME}'\"\n\
         SecRule TX:foo|&TX:FOO \"!@streq bad\" \"id:3,phase:1,pass,log,msg:'%{MATCHED_VAR_NAME}',chain\"\n \
         SecRule MATCHED_VARS_NAMES \"@streq TX:Foo\"\n\
         SecRule &TX:foo|!TX:bar \"@eq 1\" \"id:4,phase:1,pass,log\"\n\
         SecRule ARGS_NAMES \"@streq a\" \"id:5,phase:2,pass,nolog,setvar:TX.seen_%{MATCHED_VAR_NAME}=1\"\n\
         SecRule TX:seen_ARGS_NAMES:a \"@eq 1\" \"id:6,phase:2,pass,log\"",
        &request("GET /?a=1 HTTP/1.1", ""),
    );
    let found: Vec<_> = transaction.matches().iter().map(|m| (m.rule, m.target.as_str(), m.message.as_str())).collect();
    let names = "MATCHED_VARS_NAMES:TX:Foo";
    let wanted = [(2, "TX:bar", "TX:bar"), (3, names, names), (4, "&TX:Foo", ""), (6, "TX:seen_ARGS_NAMES:a", "")];
    assert_eq!(found, wanted);
}

#[test]
fn bodies_by_ctl() {
    let force = "SecRule REQBODY_PROCESSOR \"!@rx (?:URLENCODED|MULTIPART|XML|JSON)\" \"id:1,phase:1,pass,nolog,noauditlog,ctl:forceRequestBodyVariable=On\"\n";
    let look = "SecRule REQUEST_BODY \"@contains bad\" \"id:2,phase:2,pass,log\"\nSecRule ARGS:a \"@contains bad\" \"id:3,phase:2,pass,log\"\nSecRule XML:/* \"@contains bad\" \"id:4,phase:2,pass,log\"\n";
    let raw = |kind: &str, body: &str| request(&format!("POST / HTTP/1.1\nContent-Type: {kind}"), body);
    assert_eq!(found(&format!("{force}{look}"), &raw("application/x-any", "a=bad")), [2]);
    assert_eq!(found(look, &raw("application/x-any", "a=bad")), Vec::<u64>::new());
    for (processor, body, wanted) in
        [("URLENCODED", "a=bad", &[2, 3][..]), ("XML", "<a>bad</a>", &[4]), ("JSON", "{\"x\":1}", &[])]
    {
        let choose = format!("SecAction \"id:1,phase:1,pass,nolog,ctl:requestBodyProcessor={processor}\"\n{look}");
        assert_eq!(found(&choose, &raw("application/x-any", body)), wanted, "{processor}");
    }
}

#[test]
fn a_collection_in_a_text_is_its_first_value() {
    let rules = "SecRule ARGS \"!@streq %{ARGS}\" \"id:1,phase:2,pass,log,t:none,t:lowercase,\
        logdata:'%{ARGS_NAMES}=%{ARGS}%{FILES},%{MATCHED_VARS_NAMES}',\
        setvar:'tx.low_%{MATCHED_VAR_NAME}=%{MATCHED_VAR}'\"\n\
        SecRule TX:/^low_/ \"@streq x\" \"id:2,phase:2,pass,log\"\n";
    let raw = |query: &str| request(&format!("GET /?{query} HTTP/1.1\nHost: h.example"), "");
    assert_eq!(found(rules, &raw("a=x")), [0_u64; 0]);
    let transaction = run(rules, &raw("b=X"));
    let said: Vec<(u64, &str)> = transaction.matches().iter().map(|m| (m.rule, m.data.as_str())).collect();
    assert_eq!(said, [(1, "b=X,ARGS:b"), (2, "")]);
}

#[test]
fn phrases_from_files_have_comments() {
    let folder = std::env::temp_dir().join(format!("palisade-seclang-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("words.data"), "# a comment: not this\n\nEvil Word\r\n  padded\n#hash\n").unwrap();
    std::fs::write(folder.join("nets.data"), "# ours\n127.0.0.0/8 # loopback\n").unwrap();
    let rules = "SecRule ARGS \"@pmFromFile words.data\" \"id:1,phase:2,pass,log,capture,msg:'%{TX.0}'\"\n\
        SecRule REMOTE_ADDR \"@ipMatchFromFile nets.data\" \"id:2,phase:2,pass,log\"\n";
    std::fs::write(folder.join("rules.conf"), rules).unwrap();
    let mut builder = Builder::new();
    builder.text("engine.conf", ENGINE).file(folder.join("rules.conf"));
    let rules = Arc::new(builder.compile().unwrap());
    for (value, wanted) in
        [("an+EVIL+word", &[1, 2][..]), ("padded", &[1, 2]), ("not+this", &[2]), ("hash", &[2]), ("%23", &[2])]
    {
        let mut transaction = Transaction::new(&rules);
        support::run(&mut transaction, &request(&format!("GET /?v={value} HTTP/1.1"), ""));
        let ids: Vec<u64> = transaction.matches().iter().map(|found| found.rule).collect();
        assert_eq!(ids, wanted, "{value}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
    // And where files may not be read, each is a mistake.
    for text in ["SecRule ARGS \"@pmFromFile x.data\" \"id:1\"", "Include /etc/passwd", "SecUnicodeMapFile x 20127"] {
        let mut builder = Builder::new();
        builder.texts_only().text("t.conf", text);
        assert!(builder.compile().unwrap_err()[0].message.contains("files are not read here"), "{text}");
    }
}

#[test]
fn the_rules_of_every_kind_agree_with_themselves() {
    let every = include_str!("../rules/every.conf");
    let raw = request(
        "POST /x/../admin/%2e%2e/y.bak?q=1%27+or+1%3D1--+&free=1%27+or+1%3D1&x=%3Cscript%3E&url=http://evil/ HTTP/1.0\nHost: good\nUser-Agent: sqlmap\nX-Any: 1\nRange: 5-3\nCookie: _ga_1=<script>",
        "",
    );
    let ids = found(every, &raw);
    for id in [105, 106, 107, 108, 116, 200, 300, 301, 302, 310, 314, 390, 500] {
        assert!(ids.contains(&id), "{id}: {ids:?}");
    }
    assert!(!ids.contains(&320), "removed");
}
