use super::Builder;

fn problems(text: &str) -> Vec<String> {
    let mut builder = Builder::new();
    builder.text("t.conf", text);
    match builder.compile() {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(|p| format!("{}: {} | {}", p.line, p.message, p.help)).collect(),
    }
}

#[test]
fn the_examples_of_the_guide_compile() {
    let text = r#"
# Block common SQL injection patterns
SecRule ARGS "@rx (union.*select|insert.*into)" "id:1,deny,status:403"

# Block XSS attempts
SecRule ARGS "@rx (<script|javascript:)" "id:2,deny,status:403"
"#;
    assert_eq!(problems(text), Vec::<String>::new());
}

#[test]
fn every_mistake_is_named_with_its_line_and_a_way_out() {
    for (text, want) in [
        ("SecRul ARGS \"@rx x\" \"id:1\"", "1: unknown directive `SecRul` | did you mean `SecRule`?"),
        ("SecRule ARGZ \"@rx x\" \"id:1\"", "1: unknown variable `ARGZ` | did you mean `ARGS`?"),
        (
            "SecRule ARGS \"@rxx x\" \"id:1\"",
            "1: unknown operator `@rxx` | did you mean `@rx`?".replace("`@rx`", "`rx`").as_str(),
        ),
        ("SecRule ARGS \"@rx (\" \"id:1\"", "1: the pattern cannot be compiled"),
        (
            "SecRule ARGS \"@rx x\" \"id:1,t:lowercas\"",
            "1: unknown transformation `lowercas` | did you mean `lowercase`?",
        ),
        ("SecRule ARGS \"@rx x\" \"id:1,dney\"", "1: unknown action `dney` | did you mean `deny`?"),
        ("SecRule ARGS \"@rx x\" \"deny\"", "1: the rule has no `id`"),
        ("SecRule ARGS \"@rx x\" \"id:1,deny", "1: a quote that does not end"),
        ("SecRule ARGS \"@rx x\" \"id:1\"\nSecRule ARGS \"@rx x\" \"id:1\"", "2: rule 1 exists already, in t.conf:1"),
        ("SecRule ARGS \"@rx x\" \"id:1,skipAfter:END\"", "1: no marker `END` follows"),
        ("SecRule ARGS \"@rx x\" \"id:1,chain\"", "0: the last rule of the file says `chain`"),
        ("SecRule ARGS \"@rx x\" \"id:1,phase:9\"", "1: `9` is not a phase"),
        ("SecRule ARGS \"@rx x\" \"id:1,setvar:args.x=1\"", "1: `args.x` cannot be written"),
        ("SecRule ARGS \"@rx x\" \"id:1,ctl:foo=1\"", "1: `ctl:foo` is not supported"),
        ("SecRule ARGS \"@rx x\" \"id:1,msg:'%{nope}'\"", "1: the macro `%{nope}` names no known variable"),
        ("SecRule ARGS \"@rx x\" \"id:1,exec:/bin/sh\"", "1: the action `exec` is not supported"),
        ("SecRule ARGS \"@inspectFile x\" \"id:1\"", "1: the operator `@inspectFile` is not supported"),
        ("SecRule ARGS \"@pmFromFile /nonexistent.data\" \"id:1\"", "1: cannot read `/nonexistent.data`"),
        ("SecRule XML:/a/b \"@rx x\" \"id:1\"", "1: `XML:/a/b` is not supported"),
        ("SecRuleScript x.lua", "1: the directive `SecRuleScript` is not supported"),
        ("SecRuleEngine Maybe", "1: `Maybe` is none of `On`, `Off`, `DetectionOnly`"),
        ("Include /nonexistent/*.conf", "1: cannot read the folder"),
        ("Include /nonexistent.conf", "1: cannot read the file"),
        ("IncludeOptional /*/x.conf", "1: cannot read the file"),
        ("IncludeOptional", "1: `IncludeOptional` needs a file"),
        ("SecDefaultAction \"phase:1,pass,msg:'m'\"", "1: `msg` cannot be in `SecDefaultAction`"),
        ("<IfModule x>", "1: sections of a web server are not read here"),
        ("SecRule SESSIONID \"@rx x\" \"id:1\"", "1: the variable `SESSIONID` is not supported"),
        ("SecRule ARGS|&userid \"@rx x\" \"id:1\"", "1: the variable `userid` is not supported"),
        ("SecAction \"id:1,msg:'%{USERID}'\"", "1: the macro `%{USERID}` names no known variable"),
        ("SecRule ARGS \"@validateByteRange abc\" \"id:1\"", "1: `abc` is not a byte, and not a range of bytes"),
        (
            "SecRule ARGS \"@validateByteRange 9,32-abc\" \"id:1\"",
            "1: `32-abc` is not a byte, and not a range of bytes",
        ),
        ("SecRule ARGS \"@rx (a)(?(1)b|c)\" \"id:1\"", "1: the pattern cannot be compiled: conditions"),
        ("SecRule ARGS \"@ipMatch 10.0.0.0/99\" \"id:1\"", "1: `10.0.0.0/99` is not an address or a network"),
    ] {
        let got = problems(text);
        assert!(got.iter().any(|p| p.starts_with(want)), "{text}: {got:?}");
    }
}

#[test]
fn what_is_optional_need_not_exist() {
    let folder = std::env::temp_dir().join(format!("palisade-seclang-optional-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("a-config.conf"), "SecAction \"id:1,pass\"\n").unwrap();
    let wanted = ["*-config.conf", "*-before.conf", "none/*.conf", "none.conf"];
    std::fs::write(folder.join("all.load"), wanted.map(|at| format!("IncludeOptional {at}\n")).concat()).unwrap();
    let mut builder = Builder::new();
    builder.file(folder.join("all.load"));
    let rules = builder.compile().map_err(|problems| format!("{problems:?}")).unwrap();
    assert_eq!(rules.rule_count(), 1);
    // A file that appears there is one to read.
    for at in [folder.clone(), folder.join("none"), folder.join("none.conf")] {
        assert!(rules.files().contains(&at), "{}", at.display());
    }
    // What is not optional has to be there.
    let got = problems(&format!("Include {}", folder.join("*-before.conf").display()));
    assert!(got[0].starts_with("1: no file matches") && got[0].contains("`IncludeOptional`"), "{got:?}");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn all_mistakes_come_at_once() {
    let got =
        problems("SecRul x\nSecRule ARGS \"@rx (\" \"id:1\"\nSecAction \"id:2,frob\"\nSecRule ARGS \"@rx x\" \"id:3\"");
    assert_eq!(got.iter().map(|p| p.split(':').next().unwrap()).collect::<Vec<_>>(), ["1", "2", "3"]);
}

#[test]
fn rules_are_removed_and_updated_wherever_the_line_stands() {
    let mut builder = Builder::new();
    builder.text(
        "t.conf",
        r#"
SecRuleRemoveById 1
SecRule ARGS "@rx a" "id:1,deny"
SecRule ARGS "@rx b" "id:2,deny,tag:'x/y'"
SecRule ARGS "@rx c" "id:3,deny"
SecRuleUpdateTargetById 3 "!ARGS:free"
SecRuleRemoveByTag "x/"
SecRuleUpdateActionById 3 "status:418"
"#,
    );
    let rules = builder.compile().unwrap();
    assert_eq!(rules.rules.iter().map(|r| r.phase).collect::<Vec<_>>(), [0, 0, 2]);
    assert_eq!((rules.rules[2].links[0].exclusions.len(), rules.rules[2].status), (1, Some(418)));
}

#[test]
fn what_newer_rule_sets_use_compiles() {
    let text = r#"
SecComponentSignature "OWASP_CRS/4.28.0"
SecDefaultAction "phase:2,log,auditlog,pass"
SecRule TX:DETECTION_PARANOIA_LEVEL "@lt 1" "id:911011,phase:1,pass,nolog,skipAfter:END"
SecRule REQUEST_BODY_LENGTH "@gt 0" "id:1,phase:2,pass,t:none,ctl:auditLogParts=+E,ctl:auditEngine=RelevantOnly"
SecRule REQUEST_FILENAME "@beginsWith /a" "id:2,phase:1,pass,t:none,t:escapeSeqDecode,t:removeCommentsChar,t:removeWhitespace"
SecRule REQUEST_METHOD "@unconditionalMatch" "id:3,phase:1,pass"
SecRule ARGS|!ARGS:/^json\.x/|REQUEST_COOKIES|!REQUEST_COOKIES:/^_ga(?:_\w+)?$/ "@rx (?i)\x{bc}|[\n\r]|\bor\b" "id:4,phase:2,block,capture,multiMatch,t:none,t:utf8toUnicode,t:urlDecodeUni,msg:'m',logdata:'%{TX.0} in %{MATCHED_VAR_NAME}: %{MATCHED_VAR}',severity:'CRITICAL',setvar:'tx.inbound_anomaly_score_pl1=+%{tx.critical_anomaly_score}'"
SecRule RESPONSE_HEADERS:/^x-/ "@within %{tx.list}" "id:5,phase:3,pass"
SecRule RESPONSE_STATUS "@rx ^5" "id:6,phase:3,pass,chain"
    SecRule RESPONSE_BODY "@pm error stack" "setvar:tx.e=1"
SecMarker "END"
SecRuleUpdateTargetById 4 "!REQUEST_COOKIES:/^intercom-session/"
SecRuleUpdateTargetByTag "nothing" "!ARGS:a"
SecCollectionTimeout 600
SecAuditLogType Serial
"#;
    assert_eq!(problems(text), Vec::<String>::new());
}

#[test]
fn actions_without_effect_are_noted_with_their_place() {
    let mut builder = Builder::new();
    builder.text(
        "t.conf",
        "SecRule ARGS \"@rx a\" \"id:1,deny,sanitiseMatched,maturity:'9'\"\n\n\
         SecRule ARGS \"@rx a\" \"id:2,deny,chain\"\n SecRule ARGS \"@rx b\" \"deprecatevar:ip.a=60/300\"\n\
         SecRuleUpdateActionById 1 \"sanitiseArg:password\"",
    );
    let notes = builder.compile().unwrap().settings.notes;
    let starts =
        ["t.conf:1: `sanitiseMatched` has no effect", "t.conf:4: `deprecatevar` has", "t.conf:5: `sanitiseArg` has"];
    assert!(notes.len() == 3 && notes.iter().zip(starts).all(|(note, start)| note.starts_with(start)), "{notes:?}");
}
