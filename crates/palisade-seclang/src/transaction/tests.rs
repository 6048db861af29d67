use std::sync::Arc;

use super::{FORCED, Outcome, Transaction};
use crate::body::Finding;
use crate::parse::Builder;
use crate::ruleset::RuleSet;

fn rules(text: &str) -> Arc<RuleSet> {
    let mut builder = Builder::new();
    builder.text("t.conf", text);
    Arc::new(
        builder
            .compile()
            .unwrap_or_else(|p| panic!("{}", p.iter().map(|p| p.to_string()).collect::<Vec<_>>().join("\n"))),
    )
}

/// The numbers of the rules that match a request, in order.
fn matched(rules: &Arc<RuleSet>, target: &str, headers: &[(&str, &str)], body: &[u8]) -> (Vec<u64>, Transaction) {
    let mut t = Transaction::new(rules);
    t.connection("192.0.2.1", 1, "192.0.2.2", 443);
    t.request(b"POST", target.as_bytes(), b"HTTP/1.1");
    for (name, value) in headers {
        t.header(name.as_bytes(), value.as_bytes());
    }
    t.request_headers();
    t.body(body);
    t.request_body();
    t.logging();
    (t.matches().iter().map(|m| m.rule).collect(), t)
}

#[test]
fn the_first_refusing_rule_ends_the_phase() {
    let rules = rules(
        "SecRule ARGS \"@rx (<script|javascript:)\" \"id:2,deny,status:403\"\nSecRule ARGS \"@rx .\" \"id:3,deny,status:418\"\nSecAction \"id:4,phase:5,log,pass\"",
    );
    let (ids, t) = matched(&rules, "/?a=1&b=x%3Cscript%3E", &[], b"");
    assert_eq!(ids, [2, 4]);
    let verdict = t.verdict().unwrap();
    assert_eq!((verdict.rule, verdict.status, verdict.outcome), (2, 403, Outcome::Refuse));
    let found = &t.matches()[0];
    assert_eq!((found.target.as_str(), found.range), ("ARGS:b", Some((1, 8))));
    assert_eq!(found.context, b"x<script>");
}

#[test]
fn detection_only_records_and_lets_pass() {
    let rules = rules(
        "SecRuleEngine DetectionOnly\nSecRule ARGS \"@rx x\" \"id:1,deny\"\nSecRule ARGS \"@rx x\" \"id:2,deny\"",
    );
    let (ids, t) = matched(&rules, "/?a=x", &[], b"");
    assert_eq!((ids, t.verdict()), (vec![1, 2], None));
    assert_eq!(t.would_be().map(|v| v.rule), Some(1));
}

#[test]
fn chains_captures_macros_and_skips() {
    let rules = rules(
        r#"
SecRule ARGS:a "@rx ^(\w)(\w)" "id:1,phase:2,pass,log,capture,chain,msg:'%{tx.1}-%{MATCHED_VAR_NAME}'"
 SecRule TX:2 "@streq y" "setvar:tx.n=+2,setvar:tx.name_%{tx.1}=hit"
SecRule TX:N "@eq 2" "id:2,phase:2,pass,nolog,skipAfter:END"
SecAction "id:3,phase:2,pass,log"
SecMarker END
SecRule TX:/^name_/ "@streq hit" "id:4,phase:2,pass,log,setvar:!tx.n"
SecRule &TX:n "@eq 0" "id:5,phase:2,pass,log"
SecRule &ARGS "!@lt 2" "id:6,phase:2,pass,log"
"#,
    );
    let (ids, t) = matched(&rules, "/?a=xyz&b=1", &[], b"");
    assert_eq!(ids, [1, 4, 5, 6]);
    assert_eq!(t.matches()[0].message, "x-TX:2");
    let (ids, _) = matched(&rules, "/?a=xz", &[], b"");
    assert_eq!(ids, [3, 5]);
}

#[test]
fn targets_are_excluded_by_rule_and_at_run_time() {
    let rules = rules(
        r#"
SecRule REQUEST_HEADERS:X-Mode "@streq free" "id:1,phase:1,pass,nolog,ctl:ruleRemoveTargetById=3;ARGS:text,ctl:ruleRemoveById=4"
SecRule ARGS|!ARGS:/^pw_/ "@rx bad" "id:2,phase:2,pass,log"
SecRule ARGS "@rx bad" "id:3,phase:2,pass,log"
SecRule ARGS_NAMES "@rx text" "id:4,phase:2,pass,log"
"#,
    );
    assert_eq!(matched(&rules, "/?pw_1=bad", &[], b"").0, [3]);
    assert_eq!(matched(&rules, "/?text=bad", &[], b"").0, [2, 3, 4]);
    assert_eq!(matched(&rules, "/?text=bad", &[("X-Mode", "free")], b"").0, [2]);
}

#[test]
fn the_name_of_a_server_has_no_port() {
    for (host, name) in [
        ("www.example.com", "www.example.com"),
        ("www.example.com:8080", "www.example.com"),
        ("192.0.2.2:80", "192.0.2.2"),
        ("[2001:db8::1]", "[2001:db8::1]"),
        ("[2001:db8::1]:8080", "[2001:db8::1]"),
        ("[2001:db8::1", "[2001:db8::1"),
    ] {
        let rules = rules(&format!("SecRule SERVER_NAME \"@streq {name}\" \"id:1,phase:1,pass,log\""));
        assert_eq!(matched(&rules, "/", &[("Host", host)], b"").0, [1], "{host}");
    }
}

#[test]
fn json_becomes_arguments_by_path() {
    let rules = rules(
        r#"
SecRule ARGS:json.user.name "@streq Zoë" "id:1,phase:2,pass,log"
SecRule ARGS:json.rows.array_1.t "@streq x" "id:2,phase:2,pass,log"
SecRule ARGS:json.n "@eq -12" "id:3,phase:2,pass,log"
SecRule ARGS_NAMES "@contains evil" "id:4,phase:2,pass,log"
SecRule REQBODY_ERROR "@eq 1" "id:5,phase:2,pass,log"
"#,
    );
    let json = [("Content-Type", "application/json; charset=utf-8")];
    let body =
        r#" {"user":{"name":"Zo\u00eb"},"rows":[{"t":1},{"t":"x"}],"n":-12.5e1,"evil":[]  , "e":{"evil":null}} "#;
    let (ids, t) = matched(&rules, "/", &json, body.as_bytes());
    assert_eq!((ids, t.findings()), (vec![1, 2, 3, 4], &[][..]));
    for (body, want) in [
        (&b"{\"a\":1,\"a\":2}"[..], "json_duplicate_key"),
        (b"\xef\xbb\xbf{}", "json_bom"),
        (b"{\"a\":NaN}", "json_syntax"),
        (b"{\"a\":\"\\ud800\"}", "json_lone_surrogate"),
        (b"{\"a\":\"\xff\"}", "not_utf8"),
        (b"{\"a\":1}}", "json_syntax"),
        (b"{\"a\":01}", "json_syntax"),
        (b"{\"a\":1", "json_syntax"),
        (b"{'a':1}", "json_syntax"),
        (b"[1,]", "json_syntax"),
        (b"\"a\nb\"", "json_syntax"),
        ([b'['; 600].as_slice(), "too_deep"),
        (b"{\0\"\0a\0\"\0", "json_syntax"),
    ] {
        let (_, t) = matched(&rules, "/", &json, body);
        assert!(
            t.findings().iter().any(|f| f.code() == want),
            "{:?}: {:?}",
            String::from_utf8_lossy(body),
            t.findings()
        );
    }
}

#[test]
fn keys_above_nothing_are_arguments_too() {
    let rules = rules(
        "SecRule ARGS_NAMES \"@contains bad\" \"id:1,phase:2,pass,log\"\nSecRule ARGS \"@rx .\" \"id:2,phase:2,pass,log\"\nSecRule &ARGS \"@eq 1\" \"id:3,phase:2,pass,log\"",
    );
    for kind in ["application/json", "application/octet-stream"] {
        for body in
            [r#"{"bad":{}}"#, r#"{"bad":[]}"#, r#"{"a":{"bad":[]}}"#, r#"[[{"bad":[{}]}]]"#, r#"{"a":{"bad":[[]]}}"#]
        {
            let mut t = Transaction::new(&rules);
            t.header(b"Content-Type", kind.as_bytes());
            t.request_headers();
            t.guess_json();
            t.body(body.as_bytes());
            t.request_body();
            let ids: Vec<u64> = t.matches().iter().map(|found| found.rule).collect();
            assert_eq!((ids, t.findings()), (vec![1, 3], &[][..]), "{kind} {body}");
        }
    }
    let json = [("Content-Type", "application/json")];
    for body in [&b"{}"[..], b"[]"] {
        assert_eq!(matched(&rules, "/", &json, body).1.items(), Vec::new());
    }
    let items = matched(&rules, "/", &json, br#"{"a":[1,{},[],{"b":{}}]}"#).1.items();
    let names: Vec<_> = items.iter().map(|(_, name, _)| String::from_utf8_lossy(name)).collect();
    assert_eq!(names, ["json.a.array_0", "json.a.array_1", "json.a.array_2", "json.a.array_3.b"]);
}

#[test]
fn a_path_that_is_cut_is_said() {
    let rules =
        rules("SecRequestBodyLimit 4000000\nSecRequestBodyNoFilesLimit 4000000\nSecAction \"id:1,phase:2,pass,nolog\"");
    let key = "k".repeat(700 << 10);
    let body = format!("{{\"{key}\":{{\"{key}\":1}}}}");
    let (_, t) = matched(&rules, "/", &[("Content-Type", "application/json")], body.as_bytes());
    assert_eq!(t.findings().iter().map(Finding::code).collect::<Vec<_>>(), ["value_too_long"]);
}

#[test]
fn a_body_without_a_type_is_read_both_ways() {
    let rules = rules("SecRule ARGS \"@rx bad\" \"id:1,phase:2,pass,log\"");
    for body in [&b"{\"a\":\"\\u0062ad\"}"[..], b"a=%62ad"] {
        let (ids, t) = matched(&rules, "/", &[], body);
        assert_eq!(ids, [1]);
        assert!(t.findings().contains(&Finding::NoContentType));
    }
}

#[test]
fn multipart_fields_files_and_its_traps() {
    let rules = rules(
        r#"
SecRule ARGS:a "@streq 1
2" "id:1,phase:2,pass,log"
SecRule FILES "@streq x.php" "id:2,phase:2,pass,log"
SecRule FILES_NAMES "@streq up" "id:3,phase:2,pass,log"
SecRule MULTIPART_PART_HEADERS:up "@rx ^Content-Type: text/plain$" "id:4,phase:2,pass,log"
SecRule FILES_COMBINED_SIZE "@eq 4" "id:5,phase:2,pass,log"
SecRule MULTIPART_STRICT_ERROR "@eq 1" "id:6,phase:2,pass,log"
"#
        .replace("1\n2", "12")
        .as_str(),
    );
    let kind = [("Content-Type", "multipart/form-data; boundary=xx")];
    let good = "--xx\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n12\r\n--xx\r\nContent-Disposition: form-data; name=\"up\"; filename=\"x.php\"\r\nContent-Type: text/plain\r\n\r\nabcd\r\n--xx--\r\n";
    let (ids, t) = matched(&rules, "/", &kind, good.as_bytes());
    assert_eq!((ids, t.findings()), (vec![1, 2, 3, 4, 5], &[][..]));
    for (from, to, want) in [
        ("\r\n", "\n", "multipart_framing"),
        ("--xx--\r\n", "", "multipart_framing"),
        ("--xx--\r\n", "--xx--\r\nmore", "multipart_framing"),
        ("12\r\n--xx\r\n", "12\r\n--xxy\r\n", "multipart_framing"),
        ("name=\"a\"", "name=\"a\"; name=\"b\"", "multipart_header"),
        ("filename=\"x.php\"", "filename=\"x.txt\"; filename*=UTF-8''x.php", "multipart_header"),
        ("name=\"a\"", "name=\"a\"; name*0=\"b\"", "multipart_header"),
        ("filename=\"x.php\"", "filename*0=\"x\"; filename*1=\".php\"", "multipart_header"),
        ("filename=\"x.php\"", "filename=\"x.txt\"; filename*0*=UTF-8''x; filename*1=.php", "multipart_header"),
        ("filename=\"x.php\"", "filename=\"x.php\"; Size*=1", "multipart_header"),
        ("name=\"a\"", "name='a'", "multipart_header"),
        ("name=\"a\"", "name=\"a", "multipart_header"),
        ("form-data; name=\"a\"", "form-data;\r\n name=\"a\"", "multipart_header"),
        ("Content-Type: text/plain", "Content-Transfer-Encoding: base64", "multipart_header"),
        ("Content-Type: text/plain", "Content-Type: multipart/mixed; boundary=y", "multipart_header"),
        ("name=\"a\"", "name=\"_charset_\"", "form_charset"),
        ("filename=\"x.php\"", "filename=\"\"", "multipart_header"),
    ] {
        let (_, t) = matched(&rules, "/", &kind, good.replace(from, to).as_bytes());
        assert!(t.findings().iter().any(|f| f.code() == want), "{to:?}: {:?}", t.findings());
    }
    for kind in ["multipart/form-data", "multipart/form-data; boundary=a; boundary=b", "multipart/form-data; boundary="]
    {
        let (_, t) = matched(&rules, "/", &[("Content-Type", kind)], good.as_bytes());
        assert!(t.findings().contains(&Finding::MultipartBoundary), "{kind}");
    }
}

/// What is found in a multipart body that comes in pieces of a length, and whether something looked like its boundary.
fn multipart(body: &[u8], piece: usize) -> (Vec<Finding>, bool) {
    let rules = rules("SecRule MULTIPART_UNMATCHED_BOUNDARY \"@eq 1\" \"id:1,phase:2,pass,log\"");
    let mut t = Transaction::new(&rules);
    t.request(b"POST", b"/", b"HTTP/1.1");
    t.header(b"Content-Type", b"multipart/form-data; boundary=X");
    t.request_headers();
    body.chunks(piece).for_each(|piece| t.body(piece));
    t.request_body();
    (t.findings().to_vec(), t.matches().iter().any(|found| found.rule == 1))
}

#[test]
fn a_boundary_inside_a_line_is_two_readings() {
    let file = |content: &[u8]| {
        let head = &b"--X\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a\"\r\n\r\n"[..];
        [head, content, b"\r\n--X--\r\n"].concat()
    };
    let inside = Finding::MultipartFraming("has its boundary inside a line");
    let field = "--X\r\nContent-Disposition: form-data; name=\"q\"\r\n\r\nPAYLOAD";
    for before in [0, 1, 7, 8000, 8188, 8189, 8190, 8191, 8192, 8193, 8194, 8195, 9000, 20_000] {
        for end in ["", "\r", "\0", "--"] {
            let content = format!("{}A{end}{field}", "a".repeat(before));
            for piece in [1, 2, 3, 5, 4096, usize::MAX] {
                let (findings, unmatched) = multipart(&file(content.as_bytes()), piece);
                assert!(findings.contains(&inside) && unmatched, "{before} {end:?} {piece}: {findings:?}");
            }
        }
        let long = format!("--X{}\r\n", "a".repeat(before));
        assert!(before == 0 || !multipart(&file(long.as_bytes()), 100).0.is_empty(), "a long line that begins with it");
    }
    // What only resembles it is content.
    for content in [&b"a--b\r\n---\r\n--\r\n-X\r\n- -X"[..], &[b'-'; 30_000], b"--x", b"\x89PNG\r\n\x1a\n\0\0--\0X\n"] {
        for piece in [1, 100, usize::MAX] {
            assert_eq!(
                multipart(&file(content), piece).0,
                Vec::<Finding>::new(),
                "{}",
                content[..content.len().min(20)].escape_ascii()
            );
        }
    }
}

#[test]
fn behind_the_last_boundary_there_is_the_end_of_a_line_alone() {
    let fed = |body: &[u8], piece: usize| {
        let rules = rules("SecRule MULTIPART_STRICT_ERROR \"@eq 1\" \"id:1,phase:2,pass,log\"");
        let mut t = Transaction::new(&rules);
        t.header(b"Content-Type", b"multipart/form-data; boundary=X");
        t.request_headers();
        body.chunks(piece).for_each(|piece| t.body(piece));
        t
    };
    let form =
        |more: &str| format!("--X\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nb\r\n--X--{more}").into_bytes();
    let text = Finding::MultipartFraming("has text after its last boundary");
    for piece in [1, 2, 7, usize::MAX] {
        for good in ["", "\r\n", "\r\n\r\n", "\r\n\r\n\r\n"] {
            let mut t = fed(&form(good), piece);
            t.request_body();
            assert!(t.findings().is_empty(), "{good:?} in pieces of {piece}: {:?}", t.findings());
        }
        // Said before the body has ended, and before a line has.
        for bad in ["\r\n ", "\r\nx", "\r\n\r\n--X\r\n", "\r\n\0", &"\r\n".repeat(4), &"\r\n".repeat(100_000)] {
            let mut t = fed(&form(bad), piece);
            assert_eq!(t.findings(), std::slice::from_ref(&text), "{piece}");
            t.request_body();
            assert_eq!(t.matches().len(), 1, "MULTIPART_STRICT_ERROR");
        }
        let t = fed("x".repeat(20_000).as_bytes(), piece);
        assert_eq!(t.findings(), &[Finding::MultipartFraming("has text before its first boundary")], "{piece}");
    }
    for (body, undecided, completed) in [
        (&form("")[..], 5, 0),
        (&form("\r\n")[..], 7, 0),
        (&form("")[..form("").len() - 1], 4, 0),
        (&[&form("")[..form("").len() - 2], &b"\r\n"[..]].concat()[..], 0, form("").len() - 2),
        (&b"--X\r\n"[..], 0, 0),
        (&b"--X\r\n\r\n--"[..], 2, 0),
        (&b"--X\r\n\r\n--X--X--"[..], 8, 0),
        (&b"--X\r\nA: b\r\n--X\r\n"[..], 0, 0),
    ] {
        for piece in [1, 3, usize::MAX] {
            let t = fed(body, piece);
            assert_eq!((t.undecided_bytes(), t.completed_bytes()), (undecided, completed), "{}", body.escape_ascii());
        }
    }
}

#[test]
fn a_control_character_in_a_part_header_is_two_readings() {
    for header in [
        "X-A: y\rContent-Disposition: form-data; name=\"q\"\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a\"",
        "Content-Disposition: form-data; name=\"f\"; filename=\"a\"\r",
        "Content-Disposition: form-data; name=\"f\"; filename=\"a\0.php\"",
        "Content-Disposition: form-data; name=\"f\"\u{b}Content-Disposition: form-data; name=\"q\"",
    ] {
        let (findings, _) = multipart(format!("--X\r\n{header}\r\n\r\nPAYLOAD\r\n--X--\r\n").as_bytes(), 9);
        assert!(findings.contains(&Finding::MultipartHeader("has a control character")), "{header:?}: {findings:?}");
    }
    let tab = b"--X\r\nContent-Disposition:\tform-data;\tname=\"f\"\r\n\r\nx\r\n--X--\r\n";
    assert_eq!(multipart(tab, 9).0, Vec::<Finding>::new());
}

#[test]
fn a_cookie_in_quotes_is_read_in_both_ways() {
    let rules = rules(
        "SecRule REQUEST_COOKIES:a \"@rx ^union select$\" \"id:1,phase:1,pass,log\"\nSecRule REQUEST_COOKIES:a \"@contains \\\\165\" \"id:2,phase:1,pass,log\"\nSecRule &REQUEST_COOKIES \"@eq 2\" \"id:3,phase:1,pass,log\"",
    );
    assert_eq!(matched(&rules, "/", &[("Cookie", r#"a="\165nion sel\ect""#)], b"").0, [1, 2, 3]);
    assert_eq!(matched(&rules, "/", &[("Cookie", r#"a="union select""#)], b"").0, Vec::<u64>::new());
}

#[test]
fn xml_text_attributes_and_what_it_may_not_have() {
    let rules = rules(
        "SecRule XML:/* \"@streq abc<\" \"id:1,phase:2,pass,log\"\nSecRule XML://@* \"@streq 1&2\" \"id:2,phase:2,pass,log\"",
    );
    let kind = [("Content-Type", "text/xml")];
    let (ids, t) = matched(
        &rules,
        "/",
        &kind,
        b"<?xml version=\"1.0\"?><r><!-- - --><b x='1&amp;2'>a<![CDATA[b]]></b>c&#60;</r>\n",
    );
    assert_eq!((ids, t.findings()), (vec![1, 2], &[][..]));
    for (body, want) in [
        ("<!DOCTYPE r [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><r>&x;</r>", "xml_doctype"),
        ("<r>&x;</r>", "xml_entity"),
        ("<r><b></r>", "xml_syntax"),
        ("<r/><r/>", "xml_syntax"),
        ("<r a=1/>", "xml_syntax"),
        ("", ""),
    ] {
        let (_, t) = matched(&rules, "/", &kind, body.as_bytes());
        assert_eq!(t.findings().first().map_or("", |f| f.code()), want, "{body}");
    }
    for before in [0, 200, 100_000] {
        let body = format!("<?xml version=\"1.0\"{} encoding=\"utf-7\"?><r>+ADw-</r>", " ".repeat(before));
        let (_, t) = matched(&rules, "/", &kind, body.as_bytes());
        assert_eq!(t.findings(), [Finding::Charset("utf-7".to_owned())], "{before}");
    }
}

#[test]
fn limits_say_what_they_are() {
    let rules = rules(
        "SecArgumentsLimit 3\nSecRequestBodyNoFilesLimit 20\nSecRequestBodyLimit 20\nSecRule ARGS \"@rx z\" \"id:1,phase:2,pass,log\"",
    );
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let (_, t) = matched(&rules, "/?a=1&b=2&c=3&d=z", &[], b"");
    assert_eq!(t.findings(), [Finding::TooManyArguments { limit: 3 }]);
    assert!(t.findings()[0].to_string().contains("more than 3 arguments"));
    let (_, t) = matched(&rules, "/", &form, b"a=0123456789012345678901234567890");
    assert_eq!((t.findings(), t.verdict().map(|v| v.status)), (&[Finding::BodyTooLong { limit: 20 }][..], Some(413)));
}

#[test]
fn odd_content_types_are_found() {
    let rules = rules("SecAction \"id:1,phase:1,pass,nolog\"");
    for (headers, want) in [
        (vec![("Content-Type", "application/json; charset=utf-7")], "charset"),
        (vec![("Content-Type", "application/json"), ("Content-Type", "text/plain")], "several_content_types"),
        (vec![("Content-Type", "application/json, text/plain")], "several_content_types"),
    ] {
        let (_, t) = matched(&rules, "/", &headers, b"{}");
        assert!(t.findings().iter().any(|f| f.code() == want), "{headers:?}: {:?}", t.findings());
    }
}

#[test]
fn a_transaction_can_be_used_again() {
    let rules =
        rules("SecRule ARGS \"@rx x\" \"id:1,deny,setvar:tx.a=+1\"\nSecRule TX:A \"@gt 1\" \"id:2,phase:5,pass,log\"");
    let mut t = Transaction::new(&rules);
    for _ in 0..3 {
        t.request(b"GET", b"/?a=x", b"HTTP/1.1");
        t.request_headers();
        assert!(t.request_body().is_some());
        t.logging();
        assert_eq!(t.matches().len(), 1);
        t.reset(&rules);
        assert!(t.verdict().is_none() && t.tx("a").is_none());
    }
}

#[test]
fn logs_keep_data_out_of_messages_that_have_none() {
    let rules = rules("SecRule ARGS \"@rx secret\" \"id:1,phase:2,pass,log,msg:'found',severity:CRITICAL,tag:'a/b'\"");
    let (_, t) = matched(&rules, "/?q=a+secret+b", &[], b"");
    let found = &t.matches()[0];
    assert_eq!((found.message.as_str(), found.data.as_str(), found.severity), ("found", "", Some(2)));
    assert_eq!((found.tags.as_slice(), found.place.to_string().as_str()), (&["a/b".to_owned()][..], "t.conf:1"));
}

#[test]
fn rules_have_tags_and_severity_of_their_default() {
    let rules = rules(
        r#"
SecRule ARGS "@rx x" "id:1,phase:2,pass,log"
SecDefaultAction "phase:2,log,auditlog,redirect:'http://%{request_headers.host}/',tag:'Host: %{request_headers.host}',severity:5"
SecRule ARGS "@rx x" "id:2,phase:2,pass,tag:'own',chain"
    SecRule ARGS "@rx a" "t:none"
SecRule ARGS "@rx x" "id:3,phase:2,block,severity:2"
"#,
    );
    let (_, t) = matched(&rules, "/?a=xa", &[("Host", "h.example")], b"");
    let said: Vec<_> = t.matches().iter().map(|m| (m.rule, m.tags.join("|"), m.severity)).collect();
    let wanted = [(1_u64, "", None), (2, "own|Host: h.example", Some(5_u8)), (3, "Host: h.example", Some(2))];
    assert_eq!(said, wanted.map(|(rule, tags, severity)| (rule, tags.to_owned(), severity)));
    assert_eq!(t.verdict().and_then(|v| v.location.as_deref()), Some("http://h.example/"));
}

/// What only the place reads to which somebody is sent is set all the same.
#[test]
fn a_redirect_may_say_what_rules_have_set() {
    let rules = rules(
        r#"
SecAction "id:1,phase:1,pass,nolog,setvar:tx.always=a"
SecRule ARGS:to "@rx ^[a-z]+$" "id:2,phase:2,pass,nolog,setvar:'tx.to=%{MATCHED_VAR}'"
SecRule ARGS:to "@rx ." "id:3,phase:2,log,redirect:'http://h.example/%{tx.always}/%{tx.to}'"
"#,
    );
    let (_, t) = matched(&rules, "/?to=x", &[], b"");
    assert_eq!(t.verdict().and_then(|v| v.location.as_deref()), Some("http://h.example/a/x"));
}

#[derive(Debug)]
struct Fixed(std::sync::atomic::AtomicU64);

impl crate::clock::Clock for Fixed {
    fn monotonic(&self) -> std::time::Duration {
        std::time::Duration::ZERO
    }

    fn epoch(&self) -> u64 {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }
}

#[test]
fn collections_last_until_their_variables_end() {
    let clock = Arc::new(Fixed(1000.into()));
    let mut builder = Builder::new();
    builder.text(
        "t.conf",
        r#"
SecAction "id:1,phase:1,pass,nolog,initcol:ip=%{REMOTE_ADDR},setvar:ip.n=+1,expirevar:ip.n=60"
SecRule IP:n "@gt 2" "id:2,phase:1,pass,log"
"#,
    );
    let kept = Arc::new(crate::collections::MemoryCollections::new(10));
    let rules = Arc::new(builder.compile().unwrap().with_clock(clock.clone()).with_collections(kept));
    let seen = || matched(&rules, "/", &[], b"").0;
    assert_eq!((seen(), seen(), seen()), (vec![], vec![], vec![2]));
    clock.0.store(1061, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(seen(), Vec::<u64>::new());
}

#[test]
fn a_long_key_above_many_leaves_does_not_fill_memory() {
    let rules = rules("SecAction \"id:1,phase:2,pass,nolog\"");
    let body = format!("{{\"{}\":[{}1]}}", "k".repeat(100_000), "1,".repeat(9000));
    let (_, t) = matched(&rules, "/", &[("Content-Type", "application/json")], body.as_bytes());
    assert!(t.findings().iter().any(|f| f.code() == "names_too_long" && f.is_limit()), "{:?}", t.findings());
    assert!(t.store.bytes.len() < 16 << 20);
}

/// What matches, and what is found, of a body in pieces of a length, of which no more is fed than is asked for.
fn streamed(rules: &Arc<RuleSet>, kind: &str, body: &[u8], piece: usize) -> (Vec<u64>, Vec<Finding>) {
    let mut t = Transaction::new(rules);
    t.limit_body(200_000);
    t.request(b"POST", b"/", b"HTTP/1.1");
    t.header(b"Content-Type", kind.as_bytes());
    t.request_headers();
    t.every_reading();
    if !t.wants_request_body() {
        t.guess_json();
    }
    for piece in body.chunks(piece) {
        t.body(piece);
        if t.has_read_enough() {
            break;
        }
    }
    t.request_body();
    (t.matches().iter().map(|found| found.rule).collect(), t.findings().to_vec())
}

#[test]
fn what_a_rule_forces_into_request_body_does_not_depend_on_pieces() {
    let forced = rules(
        "SecRule REQBODY_PROCESSOR \"!@rx JSON\" \"id:1,phase:1,pass,nolog,ctl:forceRequestBodyVariable=On\"\n\
         SecRule REQUEST_BODY \"@contains attack\" \"id:2,phase:2,pass,log\"",
    );
    let plain = rules("SecRule REQUEST_BODY \"@contains attack\" \"id:2,phase:2,pass,log\"");
    for (start, before, found) in [
        ("x", 0, true),
        ("x", 1000, true),
        ("x", FORCED - 7, true),
        ("x", FORCED - 6, false),
        ("x", 150_000, false),
        ("x", 1_000_000, false),
        // As long as it is JSON, all of it is read.
        ("\"", 150_000, true),
    ] {
        let body = format!("{start}{}attack{}", "a".repeat(before), "z".repeat(10_000));
        let mut seen = std::collections::HashSet::new();
        for piece in [1000, 1001, 1 << 14, 1 << 16, (1 << 16) + 1, 300_000, usize::MAX] {
            let (ids, findings) = streamed(&forced, "application/octet-stream", body.as_bytes(), piece);
            assert_eq!(ids, if found { vec![2] } else { vec![] }, "{start} {before} in pieces of {piece}");
            seen.insert(format!("{findings:?}"));
            let (ids, findings) = streamed(&plain, "application/octet-stream", body.as_bytes(), piece);
            assert_eq!(ids, Vec::<u64>::new(), "nobody asked");
            assert!(start != "x" || findings.is_empty(), "{before} in pieces of {piece}: {findings:?}");
        }
        assert_eq!(seen.len(), 1, "{start} {before}: {seen:?}");
    }
}

#[test]
fn every_kind_of_multipart_is_read_as_a_form() {
    let rules = rules(
        "SecRule REQBODY_PROCESSOR \"@streq MULTIPART\" \"id:1,phase:1,pass,log\"\n\
         SecRule REQBODY_PROCESSOR \"!@rx MULTIPART\" \"id:2,phase:1,pass,nolog,ctl:forceRequestBodyVariable=On\"\n\
         SecRule ARGS:q \"@streq attack\" \"id:3,phase:2,pass,log\"",
    );
    let body = b"--X\r\nContent-Disposition: form-data; name=\"q\"\r\n\r\nattack\r\n--X--\r\n";
    for kind in ["multipart/related", "multipart/mixed", "Multipart/X", "multipart/"] {
        let (ids, findings) = streamed(&rules, &format!("{kind}; boundary=X"), body, 7);
        assert_eq!((ids, findings), (vec![3], vec![]), "{kind}");
    }
    assert_eq!(streamed(&rules, "multipart/form-data; boundary=X", body, 7).0, [1, 3]);
    let part = b"--X\r\nContent-Type: application/json\r\n\r\n{}\r\n--X--\r\n";
    let (_, findings) = streamed(&rules, "multipart/related; boundary=X", part, 7);
    assert_eq!(findings, [Finding::MultipartHeader("`Content-Disposition` is missing")]);
    // Files are not kept, whoever asks for the whole.
    let mut t = Transaction::new(&rules);
    t.limit_body(1000);
    t.request(b"POST", b"/", b"HTTP/1.1");
    t.header(b"Content-Type", b"multipart/related; boundary=X");
    t.request_headers();
    t.every_reading();
    t.body(b"--X\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a\"\r\n\r\n");
    (0..100).for_each(|_| t.body(&[b'a'; 1000]));
    assert!(t.raw_body.is_none());
    t.body(b"\r\n--X--\r\n");
    t.request_body();
    assert!(t.findings().is_empty(), "{:?}", t.findings());
}

#[test]
fn text_is_one_value() {
    let rules = rules("SecRule REQUEST_BODY \"@rx ^some text$\" \"id:1,phase:2,pass,log\"");
    assert_eq!(matched(&rules, "/", &[("Content-Type", "text/plain")], b"some text").0, [1]);
    assert_eq!(matched(&rules, "/", &[("Content-Type", "image/png")], b"some text").0, Vec::<u64>::new());
}

#[test]
fn a_file_name_in_pieces_is_put_together_and_said() {
    let rules = rules("SecRule FILES \"@streq shell.php\" \"id:1,phase:2,pass,log\"");
    let kind = [("Content-Type", "multipart/form-data; boundary=X")];
    for names in ["filename*0=\"shell\"; filename*1=\".php\"", "filename*=shell.php"] {
        let body = format!("--X\r\nContent-Disposition: form-data; name=\"f\"; {names}\r\n\r\nx\r\n--X--\r\n");
        let (ids, t) = matched(&rules, "/", &kind, body.as_bytes());
        assert_eq!(
            (ids, t.findings()),
            (vec![1], &[Finding::MultipartHeader("has an extended parameter")][..]),
            "{names}"
        );
    }
}

#[test]
fn limits_of_multipart_say_what_they_are() {
    let rules = rules("SecRule REQBODY_ERROR \"@eq 1\" \"id:1,phase:2,pass,log\"");
    let kind = [("Content-Type", "multipart/form-data; boundary=X")];
    let part = |headers: &str| format!("--X\r\nContent-Disposition: form-data; name=\"f\"{headers}\r\n\r\nx\r\n");
    let parts = Finding::TooManyParts { limit: 1000 };
    let header = Finding::PartHeaderTooLong { lines: 32, bytes: 8192 };
    for (body, wanted) in [
        (part("").repeat(1000), None),
        (part("").repeat(1001), Some(&parts)),
        (part(&"\r\nX-A: b".repeat(31)), None),
        (part(&"\r\nX-A: b".repeat(32)), Some(&header)),
        (part(&format!("\r\nX-A: {}", "b".repeat(9000))), Some(&header)),
    ] {
        let (ids, t) = matched(&rules, "/", &kind, format!("{body}--X--\r\n").as_bytes());
        assert_eq!(t.findings(), wanted.cloned().as_slice(), "{}", &body[..70]);
        assert_eq!(ids.len(), usize::from(wanted.is_some()));
        assert!(wanted.is_none_or(Finding::is_limit));
    }
    assert!(parts.to_string().contains("1000 parts") && header.to_string().contains("32 lines of 8192 bytes"));
}

/// Rules of this form ask of all that matched before (933120, 944120).
#[test]
fn however_many_values_match_the_last_one_counts() {
    let rules = rules(
        "SecRule ARGS \"@pm asp_tags auto_prepend_file\" \"id:1,phase:2,pass,log,chain\"\n \
         SecRule MATCHED_VARS \"@pm =x\" \"t:none\"\n\
         SecRule ARGS \"@rx .\" \"id:2,phase:2,pass,log,chain\"\n \
         SecRule MATCHED_VARS_NAMES \"@streq ARGS:q\" \"t:none\"",
    );
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    for many in [0, 999, 1000, 1001, 9000] {
        let body = format!("{}q=auto_prepend_file%3Dx", "p=asp_tags&".repeat(many));
        assert_eq!(matched(&rules, "/", &form, body.as_bytes()).0, [1, 2], "{many}");
    }
}

/// A rule of this form makes a variable of each argument and looks through them (931130).
#[test]
fn however_many_variables_rules_make_the_last_one_counts() {
    let text = "SecRule ARGS \"@rx ^https?://([^/]*)\" \"id:1,phase:2,pass,log,capture,chain,\
         setvar:'tx.rfi_parameter_%{MATCHED_VAR_NAME}=.%{tx.1}'\"\n \
         SecRule TX:/rfi_parameter_.*/ \"!@endsWith .%{request_headers.host}\" \"t:none\"";
    let rules = rules(text);
    let head = [("Content-Type", "application/json"), ("Host", "own.example")];
    for many in [1, 4095, 4096, 4097, 9000] {
        let own = "\"http://own.example/\",".repeat(many);
        for (last, found) in [("evil.example", vec![1]), ("own.example", vec![])] {
            let body = format!("[{own}\"http://{last}/\"]");
            let (ids, t) = matched(&rules, "/", &head, body.as_bytes());
            assert_eq!((ids, t.findings()), (found, &[][..]), "{many} {last}");
        }
    }
}

#[test]
fn too_many_variables_are_said() {
    let sets: String = (0..5).map(|n| format!(",setvar:tx.x{n}_%{{MATCHED_VAR_NAME}}=1")).collect();
    let rules =
        rules(&format!("SecArgumentsLimit 1000\nSecRule ARGS_NAMES \"@rx .\" \"id:1,phase:2,pass,nolog{sets}\""));
    let query = |many: usize| (0..many).map(|n| format!("n{n}&")).collect::<String>();
    assert_eq!(matched(&rules, &format!("/?{}", query(800)), &[], b"").1.findings(), []);
    let (_, t) = matched(&rules, &format!("/?{}", query(900)), &[], b"");
    assert_eq!(t.findings(), [Finding::TooManyVariables { limit: 4096 }]);
    assert!(t.findings()[0].is_limit() && t.findings()[0].to_string().contains("4096 variables"));
}

#[test]
fn variables_that_are_unset_are_gone() {
    let rules = rules(
        r#"
SecRule ARGS_NAMES "@rx ." "id:1,phase:2,pass,nolog,setvar:tx.x_%{MATCHED_VAR_NAME}=1"
SecRule ARGS_NAMES "@rx ^n[^7]" "id:2,phase:2,pass,nolog,setvar:!tx.x_%{MATCHED_VAR_NAME}"
SecRule ARGS_NAMES "@streq n5" "id:3,phase:2,pass,nolog,setvar:tx.X_%{MATCHED_VAR_NAME}=+2"
SecRule &TX:/^x_/ "@eq 2" "id:4,phase:2,pass,log"
SecRule TX:x_ARGS_NAMES:n5 "@eq 2" "id:5,phase:2,pass,log"
"#,
    );
    for many in [10, 70] {
        let query: String = (0..many).filter(|n| n % 10 != 7 || *n == 7).map(|n| format!("n{n}&")).collect();
        assert_eq!(matched(&rules, &format!("/?{query}"), &[], b"").0, [4, 5], "{many}");
    }
}

/// Newtonsoft.Json and Gson take all of these, whatever the type says.
#[test]
fn what_lenient_parsers_take_for_json_is_read() {
    let rules = rules("SecRule ARGS:json.q \"@streq 1' or 1=1-- \" \"id:1,phase:2,pass,log\"");
    for body in [
        r#"/**/{"q":"1\u0027 or 1=1-- "}"#,
        "// a\n{\"q\":\"1' or 1=1-- \"}",
        "# a\n{\"q\":\"1' or 1=1-- \"}",
        r"{'q':'1\u0027 or 1=1-- '}",
        r"{'q':'1\' or 1=1-- ',}",
        r#"{q:"1' or 1=1-- "}"#,
        r#"{/* "q":1 */q /**/ = "1' or 1=1-- "}"#,
    ] {
        for kind in ["image/png", "application/octet-stream", "text/plain"] {
            for piece in [1, 3, usize::MAX] {
                assert_eq!(streamed(&rules, kind, body.as_bytes(), piece), (vec![1], vec![]), "{kind} {body}");
            }
        }
    }
    // What begins like one is told apart as soon as it is none.
    for body in ["/usr/bin", "'a' b", "{\\rtf1}", "\u{89}PNG"] {
        let mut t = Transaction::new(&rules);
        t.header(b"Content-Type", b"image/png");
        t.request_headers();
        t.guess_json();
        t.body(body.as_bytes());
        assert!(t.has_read_enough(), "{body}");
    }
}

#[test]
fn a_value_may_be_as_long_as_the_body() {
    let rules = rules(
        "SecRequestBodyLimit 20000000\nSecRequestBodyNoFilesLimit 20000000\nSecRule ARGS \"@endsWith end\" \"id:1,phase:2,pass,log\"",
    );
    let mib = 1 << 20;
    for (limit, length, found) in
        [(None, 2, None), (Some(1), 1, Some(1)), (Some(8), 2, Some(1)), (Some(8), 4, Some(1)), (Some(8), 5, None)]
    {
        for kind in ["application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=X"] {
            let value = format!("{}end", "a".repeat(length * mib - 1000));
            let body = match kind {
                "application/json" => format!("{{\"a\":\"{value}\"}}"),
                "application/x-www-form-urlencoded" => format!("a={value}"),
                _ => format!("--X\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n{value}\r\n--X--\r\n"),
            };
            let mut t = Transaction::new(&rules);
            if let Some(limit) = limit {
                t.limit_body(limit * mib);
            }
            t.header(b"Content-Type", kind.as_bytes());
            t.request_headers();
            t.body(body.as_bytes());
            t.request_body();
            let ids: Vec<u64> = t.matches().iter().map(|found| found.rule).collect();
            assert_eq!(ids, found.into_iter().collect::<Vec<u64>>(), "{limit:?} {length} {kind}");
            let wanted = Finding::ValueTooLong { limit: if limit.is_some() { 4 * mib } else { mib } };
            assert_eq!(t.findings(), found.is_none().then_some(wanted).as_slice(), "{limit:?} {length} {kind}");
        }
    }
}

/// Each look at it takes a millisecond.
#[derive(Debug, Default)]
struct Ticking(std::sync::atomic::AtomicU64);

impl crate::clock::Clock for Ticking {
    fn monotonic(&self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
    }

    fn epoch(&self) -> u64 {
        0
    }
}

#[test]
fn a_budget_ends_in_the_middle_of_a_rule() {
    for reference in [true, false] {
        let mut builder = Builder::new();
        builder.text(
            "t.conf",
            "SecRule ARGS \"@rx ^x\" \"id:7,phase:2,pass,nolog,setvar:tx.n=+1\"\nSecAction \"id:8,phase:2,pass,log\"",
        );
        if reference {
            builder.reference();
        }
        let rules = Arc::new(builder.compile().unwrap().with_clock(Arc::new(Ticking::default())));
        let body = format!("a={}&", "x".repeat(20_000)).repeat(50);
        for (budget, all) in [(1000, true), (20, false)] {
            let mut t = Transaction::new(&rules);
            t.header(b"Content-Type", b"application/x-www-form-urlencoded");
            t.request_headers();
            t.body(body.as_bytes());
            t.budget(std::time::Duration::from_millis(budget));
            t.request_body();
            let budgets = t.findings().iter().filter(|f| matches!(f, Finding::Budget { .. })).count();
            let seen: usize = t.tx("n").map_or(0, |n| String::from_utf8_lossy(n).parse().unwrap());
            assert_eq!((budgets, t.matches().len()), if all { (0, 1) } else { (1, 0) }, "{reference} {budget}");
            assert!(if all { seen == 50 } else { seen < 25 }, "{reference} {budget}: {seen}");
            if reference && !all {
                assert_eq!(t.findings(), [Finding::Budget { rule: 7 }]);
                assert!(seen > 5, "{seen}");
            }
        }
    }
}

#[test]
fn a_long_value_ends_with_the_budget() {
    let mut builder = Builder::new();
    builder.text(
        "t.conf",
        "SecRule ARGS \"@rx attack\" \"id:1,phase:2,pass,log,t:none,t:urlDecodeUni,t:htmlEntityDecode,t:jsDecode\"",
    );
    let rules = Arc::new(builder.compile().unwrap().with_clock(Arc::new(Ticking::default())));
    for (budget, wanted) in [(1000, vec![]), (2, vec![Finding::Budget { rule: 1 }])] {
        let mut t = Transaction::new(&rules);
        t.header(b"Content-Type", b"application/json");
        t.request_headers();
        t.body(format!("[\"{}\"]", "%2541&lt;\\\\x".repeat(20_000)).as_bytes());
        t.budget(std::time::Duration::from_millis(budget));
        t.request_body();
        assert_eq!(t.findings(), wanted, "{budget}");
    }
}

#[test]
fn what_patterns_that_are_not_linear_may_take_is_shared() {
    let rules = rules("SecRule ARGS \"@rx (\\w+),.*;\\1!\" \"id:1,phase:2,pass,log\"");
    let value = format!("{};cc!", "ab,".repeat(150));
    let (_, t) = matched(&rules, &format!("/?a={value}"), &[], b"");
    assert_eq!(t.findings(), []);
    let (_, t) = matched(&rules, &format!("/?{}", format!("a={value}&").repeat(200)), &[], b"");
    assert_eq!(t.findings(), [Finding::StepLimit { rule: 1 }]);
}
