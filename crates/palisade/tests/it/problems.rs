//! What an operator reads when the policy is wrong: one snapshot a kind, made by the real schema and the real checks.

use palisade::live;
use palisade_policy::Sources;

/// A policy that would start, with room for a mistake.
const GOOD: &str = r#"
[server]
hosts = ["api.example.com"]

[tls]
self_signed = true

[upstream]
url = "http://127.0.0.1:8000"
"#;

/// Each kind of mistake: its name and the whole policy.
const CASES: &[(&str, &str)] = &[
    ("unknown_section", "[corse]\norigins = []"),
    ("unknown_key_with_suggestion", "[server]\nhtps = \"0.0.0.0:443\""),
    ("unknown_key_of_another_section", "[server]\nbody = \"1MiB\""),
    ("unknown_key_in_route", "[[route]]\npath = \"/\"\nmethod = [\"GET\"]"),
    ("wrong_type_number_for_size", "[limits]\nbody = 5"),
    ("wrong_type_text_for_list", "[server]\nhosts = \"api.example.com\""),
    ("wrong_type_list_for_text", "[upstream]\nurl = [\"http://127.0.0.1:8000\"]"),
    ("wrong_type_text_for_boolean", "[server]\nplaintext = \"yes\""),
    ("bad_size", "[limits]\nbody = \"1MB\""),
    ("bad_interval", "[server]\ndrain = \"25\""),
    ("bad_timeout_of_zero", "[upstream]\nresponse_timeout = \"0s\""),
    ("bad_listener", "[server]\nhttps = \"443\""),
    ("bad_host_with_scheme", "[server]\nhosts = [\"https://api.example.com\"]"),
    ("bad_network", "[server]\ntrusted_proxies = [\"10.0.0.1/8\"]"),
    ("bad_method", "[[route]]\npath = \"/\"\nmethods = [\"get\"]"),
    ("bad_path", "[[route]]\npath = \"admin\""),
    ("bad_path_wildcard", "[[route]]\npath = \"/a*\""),
    ("bad_path_type", "[[route]]\npath = \"/users/{id:float}\""),
    ("bad_upstream_scheme", "[upstream]\nurl = \"ftp://127.0.0.1\""),
    ("bad_upstream_with_path", "[upstream]\nurl = \"http://127.0.0.1:8000/api\""),
    ("password_in_a_url", "[upstream]\nurl = \"http://admin:hunter2@127.0.0.1:8000\""),
    ("secret_in_the_policy", "[server]\nadmin_token = \"hunter2-hunter2\""),
    ("bad_secret_provider", "[secrets]\nprovider = \"vualt\""),
    ("unknown_word", "[server]\nmode = \"prodution\""),
    ("number_out_of_range", "[server]\nworkers = 0"),
    ("version_of_the_future", "version = 2"),
    ("docs_for_administrators_without_logins", "[headers]\ndocs = \"admin\""),
    ("mode_of_a_control_that_enforces", "[integrity]\nmode = \"detect\""),
    ("cors_pattern_in_clear", "[cors]\norigins = [\"http://*.example.com\"]"),
    ("cors_expression_in_clear", "[cors]\norigins = ['regex:http://[a-z]+\\.example\\.com']"),
    (
        "cors_any_header_with_credentials",
        "[cors]\norigins = [\"https://a.example\"]\ncredentials = true\nheaders = [\"*\"]",
    ),
    ("static_without_a_root", "[[static]]\npath = \"/static\""),
    ("static_path_with_a_wildcard", "[[static]]\npath = \"/static/*\"\nroot = \"/srv\""),
    ("static_cache", "[[static]]\npath = \"/static\"\nroot = \"/srv\"\ncache = \"public\""),
    ("bad_prefix", "[[route]]\npath = \"/v2/*\"\nstrip_prefix = \"/v2/\""),
    ("bad_template", "[upstream]\nrequest_headers = { set = { X-Host = \"{hots}\" } }"),
    ("toml_syntax", "[server\nhosts = []"),
    ("toml_duplicate_key", "[limits]\nbody = \"1MiB\"\nbody = \"2MiB\""),
    ("issuer_with_a_slash", "[auth]\nissuer = \"https://api.example.com/\""),
    ("registration_of_another_kind", "[auth]\nissuer = \"https://a.example\"\nregistration = \"public\""),
    ("detect_on_logins", "[auth]\nissuer = \"https://a.example\"\nmode = \"detect\""),
    ("role_with_a_comma", "[[route]]\npath = \"/\"\nroles = [\"admin,user\"]"),
    ("database_with_a_password", "[database]\nurl = \"postgres://palisade:hunter2@db/palisade\""),
    ("address_of_an_unknown_endpoint", "[auth]\nissuer = \"https://a.example\"\npaths = { tokn = \"/token\" }"),
    (
        "old_tokens_for_ever",
        "[[auth.issuers]]\nname = \"old-app\"\nhs256 = { secret = \"old-jwt-key\" }\nsubject = \"app_id\"",
    ),
    (
        "old_tokens_until_some_day",
        "[[auth.issuers]]\nname = \"old-app\"\nhs256 = { secret = \"old-jwt-key\" }\nsubject = \"id\"\nuntil = \"soon\"",
    ),
    (
        "old_key_in_the_policy",
        "[[auth.issuers]]\nname = \"old-app\"\nhs256 = \"hunter2-hunter2\"\nsubject = \"app_id\"\nuntil = 2099-12-31",
    ),
    ("several_at_once", "[server]\nhtps = 1\ndrain = \"x\"\n\n[limits]\nbody = true"),
];

/// Contradictions and what production refuses: these policies are whole.
const WHOLE: &[(&str, &str)] = &[
    ("no_hosts_in_production", "[tls]\nself_signed = true"),
    ("any_host_in_production", "[server]\nhosts = [\"*\"]\n[tls]\nself_signed = true"),
    ("no_certificate_in_production", "[server]\nhosts = [\"a.example\"]"),
    ("no_tls_in_production", "[server]\nhosts = [\"a.example\"]\nhttps = \"off\""),
    ("production_in_clear", "[server]\nhosts = [\"a.example\"]\nplaintext = true\n[tls]\nself_signed = true"),
    (
        "nothing_serves_the_api",
        "[server]\nhosts = [\"a.example\"]\nhttps = \"off\"\ntrusted_proxies = [\"10.0.0.0/8\"]",
    ),
    (
        "trusts_the_internet",
        "[server]\nhosts = [\"a.example\"]\ntrusted_proxies = [\"0.0.0.0/0\"]\n[tls]\nself_signed = true",
    ),
    ("certificate_without_key", "[server]\nhosts = [\"a.example\"]\n[tls]\ncert = \"a.pem\""),
    (
        "two_listeners_on_one_port",
        "[server]\nhosts = [\"a.example\"]\nhttps = \"0.0.0.0:443\"\nhttp = \"0.0.0.0:443\"\n[tls]\nself_signed = true",
    ),
    ("development_on_the_network", "[server]\nmode = \"development\"\nhttps = \"0.0.0.0:8443\""),
    ("upstream_is_our_own_listener", "[server]\nmode = \"development\"\n[upstream]\nurl = \"http://127.0.0.1:9443\""),
    (
        "url_and_command",
        "[server]\nmode = \"development\"\n[upstream]\nurl = \"http://127.0.0.1:8000\"\ncommand = [\"uvicorn\"]",
    ),
    (
        "unknown_upstream",
        "[server]\nmode = \"development\"\n[upstreams.billing]\nurl = \"http://127.0.0.1:8001\"\n[[route]]\npath = \"/a/*\"\nupstream = \"biling\"",
    ),
    ("prefix_of_other_paths", "[server]\nmode = \"development\"\n[[route]]\npath = \"/v2/*\"\nstrip_prefix = \"/v3\""),
    (
        "header_of_the_gateway",
        "[server]\nmode = \"development\"\n[upstream]\nrequest_headers = { set = { X-Forwarded-For = \"{client.address}\" } }",
    ),
    (
        "credential_in_a_header",
        "[server]\nmode = \"development\"\n[upstream]\nrequest_headers = { set = { Authorization = \"Bearer hunter2\" } }",
    ),
    (
        "segment_that_the_path_has_not",
        "[server]\nmode = \"development\"\n[[route]]\npath = \"/a/{id}\"\nrequest_headers = { set = { X-Id = \"{path.name}\" } }",
    ),
    (
        "pinned_authority_without_tls",
        "[server]\nmode = \"development\"\n[upstream]\nurl = \"http://127.0.0.1:8000\"\nca = \"ca.pem\"",
    ),
    ("log_in_no_directory", "[server]\nmode = \"development\"\n[log]\naccess = \"/nowhere/access.log\""),
    ("log_that_is_a_directory", "[server]\nmode = \"development\"\n[log]\nsecurity = \"/proc\""),
    ("lame_duck_longer_than_drain", "[server]\nmode = \"development\"\nlame_duck = \"30s\""),
    ("unreachable_route", "[server]\nmode = \"development\"\n[[route]]\npath = \"/*\"\n[[route]]\npath = \"/admin/*\""),
    (
        "static_root_that_is_not_there",
        "[server]\nmode = \"development\"\n[[static]]\npath = \"/static\"\nroot = \"/nowhere/files\"",
    ),
    (
        "static_hides_the_application",
        "[server]\nmode = \"development\"\n[upstream]\nurl = \"http://127.0.0.1:8000\"\n[[static]]\npath = \"/\"\nroot = \"/proc\"",
    ),
    (
        "static_route_that_writes",
        "[server]\nmode = \"development\"\n[[static]]\npath = \"/static\"\nroot = \"/proc\"\n[[route]]\npath = \"/static/up\"\nmethods = [\"POST\"]",
    ),
    (
        "no_issuer_in_production",
        "[server]\nhosts = [\"a.example\"]\n[tls]\nself_signed = true\n[auth]\nregistration = \"open\"",
    ),
    (
        "issuer_without_tls_in_production",
        "[server]\nhosts = [\"a.example\"]\n[tls]\nself_signed = true\n[auth]\nissuer = \"http://a.example\"",
    ),
    (
        "template_of_a_login",
        "[server]\nmode = \"development\"\n[upstream]\nrequest_headers = { set = { X-User = \"{user.id}\" } }",
    ),
    ("roles_without_a_login", "[server]\nmode = \"development\"\n[[route]]\npath = \"/admin/*\"\nroles = [\"admin\"]"),
    ("key_without_a_login", "[server]\nmode = \"development\"\n[[route]]\npath = \"/k\"\nkey = true"),
    (
        "public_with_roles",
        "[server]\nmode = \"development\"\n[auth]\n[[route]]\npath = \"/a\"\npublic = true\nroles = [\"admin\"]",
    ),
    ("user_false", "[server]\nmode = \"development\"\n[auth]\n[[route]]\npath = \"/a\"\nuser = false"),
    (
        "key_with_roles_only",
        "[server]\nmode = \"development\"\n[auth]\n[[route]]\npath = \"/a\"\nkey = true\nroles = [\"admin\"]",
    ),
    (
        "key_of_a_fresh_login",
        "[server]\nmode = \"development\"\n[auth]\n[[route]]\npath = \"/a\"\nkey = true\nmax_age = \"5m\"",
    ),
    (
        "breached_passwords_that_are_not_there",
        "[server]\nmode = \"development\"\n[auth]\n[password]\nbreached = \"/nowhere/breached.txt\"",
    ),
    ("tokens_for_a_day", "[server]\nmode = \"development\"\n[auth]\naccess_token = \"1d\"\nrefresh_token = \"1h\""),
    ("logins_on_many_hosts", "[server]\nmode = \"development\"\n[auth]\nhost = \"*.example.com\""),
    ("logins_under_our_own_path", "[server]\nmode = \"development\"\n[auth]\npath = \"/.palisade/auth\""),
    (
        "two_endpoints_at_one_address",
        "[server]\nmode = \"development\"\n[auth]\npaths = { token = \"/in\", login = \"/in\" }",
    ),
    (
        "address_that_is_taken",
        "[server]\nmode = \"development\"\n[auth]\npaths = { token = \"/auth/old\", me = \"/.well-known/me\" }",
    ),
    (
        "route_over_an_address",
        "[server]\nmode = \"development\"\n[auth]\npaths = { token = \"/token\" }\n[[route]]\npath = \"/token\"\npublic = true",
    ),
    (
        "old_key_that_is_not_stored",
        "[server]\nmode = \"development\"\n[auth]\n[[auth.issuers]]\nname = \"old-app\"\nhs256 = { secret = \"old-jwt-key\" }\nsubject = \"app_id\"\nuntil = 2099-12-31",
    ),
    (
        "document_that_is_not_there",
        "[server]\nmode = \"development\"\n[upstream]\nopenapi = \"off\"\n[auth]\naccess = \"openapi\"",
    ),
    ("header_limit_over_the_ceiling", "[server]\nmode = \"development\"\n[limits]\nheader_bytes = \"1MiB\""),
];

/// All that is said about a policy, as it is shown without colours.
fn said(text: &str) -> String {
    let sources = Sources::new().builtin("palisade.toml", text);
    match live::check(&sources) {
        Ok((_, problems)) if problems.is_empty() => "no problem".into(),
        Ok((_, problems)) => problems.render(false),
        Err(problems) => problems.render(false),
    }
}

#[test]
fn a_good_policy_has_no_problem() {
    assert_eq!(said(GOOD), "no problem");
    assert_eq!(said(palisade::policy::STARTER), "no problem");
}

/// Threats 1: meant or not, it is said.
#[test]
fn a_laxer_route_inside_a_stricter_one_is_reported() {
    let shown = said(
        "[server]\nmode = \"development\"\n[auth]\n[[route]]\npath = \"/admin/health\"\npublic = true\n[[route]]\npath = \"/admin/*\"\nroles = [\"admin\"]",
    );
    insta::assert_snapshot!(shown);
}

#[test]
fn every_mistake_is_said_with_its_place_and_its_fix() {
    for (name, text) in CASES.iter().chain(WHOLE) {
        let shown = said(text);
        assert!(shown.contains("error"), "{name}: {shown}");
        assert!(!shown.contains("hunter2"), "{name}: {shown}");
        insta::assert_snapshot!(*name, shown, text);
    }
}

#[test]
fn every_kind_has_a_place_and_a_caret() {
    for (name, text) in CASES {
        let shown = said(text);
        assert!(shown.contains("<palisade.toml>:") && shown.contains('^'), "{name}: {shown}");
    }
}
