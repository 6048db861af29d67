//! What each kind of mistake looks like. A snapshot a kind; its description is the policy.

mod sample;

/// Shows a policy's problems, and proves that an error never comes with a value.
fn show(name: &str, text: &str) {
    let (config, problems) = sample::load(text);
    assert_eq!(config.is_none(), problems.is_fatal(), "{name}: {problems}");
    assert!(!problems.is_empty(), "{name}: nothing was found");
    let rendered = problems.render(false);
    assert!(!rendered.contains("hunter2"), "{name}: a secret is shown:\n{rendered}");
    assert!(!problems.to_json().to_string().contains("hunter2"), "{name}: a secret is shown in JSON");
    let json = problems.to_json();
    assert_eq!(json["problems"].as_array().map(Vec::len), Some(problems.iter().count()), "{name}");
    let description = text.chars().take(500).collect::<String>();
    insta::with_settings!({ description => description, omit_expression => true, prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!(name, rendered);
    });
}

macro_rules! kinds {
    ($($name:ident: $text:expr;)*) => {
        $(#[test] fn $name() { show(stringify!($name), $text); })*

        /// As many kinds as the project promises.
        #[test]
        fn there_are_enough_kinds() {
            assert!([$(stringify!($name)),*].len() >= 35);
        }
    };
}

kinds! {
    unknown_key: "[cors]\norgins = [\"https://app.example.com\"]\n";
    unknown_key_in_other_case: "[cors]\nmaxAge = \"1h\"\n";
    unknown_key_of_another_section: "[waf]\norigins = [\"https://app.example.com\"]\n";
    unknown_key_at_the_top_of_a_section: "orgins = [\"https://app.example.com\"]\n";
    unknown_key_that_belongs_to_the_top: "[server]\nversion = 1\n";
    unknown_key_like_nothing: "[cors]\nfrobnicate = true\n";
    unknown_key_in_a_route: "[[route]]\npath = \"/\"\nroles = []\n\n[[route]]\npath = \"/x\"\nlimits = { bdoy = \"1MiB\" }\nrole = \"admin\"\n";
    unknown_section: "[corz]\norigins = []\n";
    unknown_list_of_tables: "[[routes]]\npath = \"/\"\n";
    unknown_key_that_sounds_secret: "[server]\nadmin_tokn = \"hunter2\"\npassword = \"hunter2\"\n[upstream]\nstuff = { password = \"hunter2\" }\n";
    wrong_type_text_for_number: "[waf]\nparanoia = \"2\"\n";
    wrong_type_number_for_text: "[cors]\nmax_age = 3600\n";
    wrong_type_text_for_boolean: "[cors]\ncredentials = \"true\"\n";
    wrong_type_text_for_list: "[cors]\norigins = \"https://app.example.com\"\n";
    wrong_type_list_for_text: "[upstream]\nurl = [\"http://127.0.0.1:8000\"]\n";
    wrong_type_table_for_list_of_tables: "[route]\npath = \"/\"\n";
    wrong_type_list_of_tables_for_table: "[[cors]]\norigins = []\n[[cors]]\n";
    wrong_type_text_for_section: "cors = \"*\"\n";
    wrong_type_in_a_list: "[server]\nhosts = [\"a.example.com\", 5]\n";
    wrong_type_date: "[[route]]\npath = 2026-01-01\nsince = 2026-01-01\n";
    wrong_type_float_for_integer: "[limits]\nconnections = 1.5\n";
    wrong_type_of_a_union: "[rate_limit]\ndefault = true\n";
    enum_value: "[waf]\nmode = \"blok\"\n";
    enum_value_like_nothing: "[log]\nformat = \"xml\"\n";
    enum_value_with_a_table: "[log]\naccess = { file = { pth = \"x.log\" } }\n";
    format_of_a_rate: "[rate_limit]\ndefault = \"600/fortnight\"\n";
    format_of_a_rate_or_a_word: "[rate_limit]\ndefault = \"of\"\n";
    format_in_a_list: "[rate_limit]\ndefault = [\"10/second\", \"many/day\"]\n";
    format_of_a_size: "[limits]\nbody = \"1 MB\"\n[[route]]\npath = \"/up\"\nlimits = { body = \"lots\" }\n";
    format_of_an_origin: "[cors]\norigins = [\"https://app.example.com\", \"null\"]\n";
    number_too_small: "[waf]\nparanoia = 0\n";
    number_too_large: "[limits]\njson_depth = 1000\n";
    number_wider_than_its_type: "[limits]\nconnections = 5_000_000_000\n";
    number_negative: "[limits]\nconnections = -1\n";
    fraction_out_of_range: "[waf]\nsample = 1.5\n";
    missing_key_of_a_route: "[[route]]\npath = \"/a\"\n\n[[route]]\nroles = [\"admin\"]\n";
    missing_key_of_an_inner_table: "[tls]\nacme = { directory = \"https://acme.example.com\" }\n";
    missing_key_of_a_section: "[redis]\n";
    empty_text: "[[route]]\npath = \"\"\n";
    empty_list: "[upstream]\ncommand = []\n";
    list_too_long: "[upstream]\ncommand = [\"a\", \"b\", \"c\", \"d\", \"e\", \"f\", \"g\", \"h\", \"i\"]\n";
    list_with_a_repetition: "[server]\nhosts = [\"a.example.com\", \"b.example.com\", \"a.example.com\"]\n";
    secret_written_inline: "[server]\nadmin_token = \"hunter2\"\n\n[redis]\nurl = \"redis://:hunter2@cache\"\n";
    secret_as_number: "[server]\nadmin_token = 12345\n";
    secret_in_a_wrong_table: "[server]\nadmin_token = { value = \"hunter2\" }\n";
    secret_where_a_name_belongs: "[redis]\nurl = { secret = \"redis://:hunter2@cache\" }\n";
    url_with_a_password: "[upstream]\nurl = \"http://app:hunter2@127.0.0.1\"\n";
    url_with_a_password_beside_a_mistake: "upstream = { ulr = 1, url = \"http://app:hunter2@127.0.0.1\" }\n";
    url_or_secret: "[database]\nurl = \"mysql://app:hunter2@db/x\"\n";
    renamed_key: "[upstream]\ntimeout = \"30s\"\n";
    renamed_key_with_a_mistake: "[limits]\nmax_body = \"much\"\n";
    renamed_key_beside_its_new_name: "[limits]\nmax_body = \"1MiB\"\nbody = \"2MiB\"\n";
    renamed_key_of_another_section: "[server]\nbody_limit = \"2MiB\"\n";
    deprecated_key: "[server]\ngrace = \"5s\"\n";
    several_at_once: "[cors]\norgins = []\nmax_age = \"soon\"\n\n[waf]\nmode = \"blok\"\nparanoia = 9\n\n[[route]]\nmethods = \"GET\"\n";
    control_characters: "[cors]\n\"a\\u001b[31mb\" = 1\n[waf]\nmode = \"\\u001b[2Jx\"\n";
    a_long_line: concat!("[server]\nhosts = [\"one.example.com\", \"two.example.com\", \"three.example.com\", \"four.example.com\", \"five.example.com\", 6, ",
        "\"seven.example.com\", \"eight.example.com\", \"nine.example.com\", \"ten.example.com\", \"eleven.example.com\"]\n");
    wide_characters_and_tabs: "[server]\n\thosts = [\"日本.example\", 5]\n";
    syntax_unquoted: "[upstream]\nurl = http://127.0.0.1:8000\n";
    syntax_yes: "[cors]\ncredentials = yes\n";
    syntax_null: "[cors]\nmax_age = null\n";
    syntax_colon: "[cors]\ncredentials: true\n";
    syntax_unclosed_text: "[upstream]\nurl = \"http://127.0.0.1:8000\n\n[cors]\ncredentials = true\n";
    syntax_unclosed_list: "[server]\nhosts = [\"a.example.com\"\n\n[cors]\ncredentials = true\n";
    syntax_unclosed_header: "[server\nhttps = \"off\"\n";
    syntax_unclosed_inline_table: "[tls]\nacme = { email = \"a@example.com\"\nself_signed = true\n";
    syntax_missing_comma: "[server]\nhosts = [\"a.example.com\" \"b.example.com\"]\n";
    syntax_missing_value: "[waf]\nmode =\n";
    syntax_missing_assignment: "[waf]\nmode\n";
    syntax_duplicate_key: "[waf]\nmode = \"off\"\nparanoia = 1\nmode = \"block\"\n";
    syntax_duplicate_table: "[waf]\nmode = \"off\"\n[cors]\n[waf]\nparanoia = 1\n";
    syntax_escape: "[[static]]\npath = \"/s\"\nroot = \"C:\\sites\"\n";
    syntax_slash_comment: "// comment\n[waf]\n";
    syntax_typographic_quotes: "[waf]\nmode = \u{201c}off\u{201d}\n";
    syntax_leading_zero: "[waf]\nparanoia = 01\n";
    syntax_several: "[cors]\ncredentials = yes\nmax_age = \n[waf\nmode = \"off\"\n";
    syntax_beside_a_secret: "[server]\nadmin_token = hunter2\n[redis]\npassword = \"hunter2\n";
    syntax_text_after_a_value: "[waf]\nmode = \"off\" \"block\"\n";
    number_beyond_64_bits: "[limits]\nconnections = 99999999999999999999\n";
    number_infinite: "[waf]\nsample = inf\n";
    nested_too_deeply: &format!("[upstream]\nenv = {}{}\n", "[".repeat(60), "]".repeat(60));
    nested_far_too_deeply: &format!("[upstream]\nenv = {}{}\n", "[".repeat(5000), "]".repeat(5000));
}
