//! Threat 10: a condition never passes a request that lacks something, unless it would pass with everything too.

use proptest::prelude::*;

use crate::sample::{Claim, Request, environment, text, texts};
use crate::{Error, Expression, MAX_STEPS, Refused, Why};

/// Each condition speaks of everything that is taken away below, in one of the ways in which a condition can be written
/// badly.
const CONDITIONS: [&str; 48] = [
    "user.claims.tenant == query.tenant",
    "query.tenant == user.claims.tenant",
    "user.claims.tenant != 'evil'",
    "!(user.claims.tenant == 'evil')",
    "!('banned' in user.claims.groups)",
    "!user.claims.groups.exists(g, g == 'banned')",
    "user.claims.groups.all(g, g != 'banned')",
    "'staff' in user.claims.groups",
    "user.claims.groups == ['staff', 'dev']",
    "user.claims.groups != ['banned']",
    "user.claims.tenant in ['acme', 'other']",
    "!(user.claims.tenant in ['evil'])",
    "!(user.claims.tenant in [])",
    "user.claims.tenant == user.claims.tenant",
    "user.claims.groups == user.claims.groups",
    "user.claims.tenant == 'acme' || user.claims.tenant == 'other'",
    "user.claims.tenant == 'x' || user.claims.tenant == 'acme'",
    "user.claims.tenant != 'x' && user.claims.tenant != 'y'",
    "!(user.claims.tenant == 'x' || user.claims.tenant == 'y')",
    "!(user.claims.tenant == 'x' && true)",
    "user.claims.tenant == 'x' ? false : true",
    "(user.claims.tenant == 'acme' ? 'a' : 'b') == 'a'",
    "user.claims.tenant.startsWith('ac')",
    "!user.claims.tenant.startsWith('ev')",
    "!user.claims.tenant.endsWith('il')",
    "!user.claims.tenant.contains('evil')",
    "!user.claims.tenant.matches('^evil$')",
    "user.claims.tenant.matches('^[a-z]+$')",
    "user.claims.tenant.lowerAscii() == 'acme'",
    "size(user.claims.tenant) < 100",
    "size(user.claims.groups) < 100",
    "!(size(user.claims.groups) > 100)",
    "user.claims.groups[0] != 'banned'",
    "int(user.claims.level) < 100",
    "!(int(user.claims.level) > 100)",
    "int(user.claims.level) != 0",
    "string(user.claims.tenant) != 'evil'",
    "'t-' + user.claims.tenant != 't-evil'",
    "user.claims.tenant > 'a'",
    "user.claims.tenant < 'z'",
    "now < timestamp(user.claims.until)",
    "!(now > timestamp(user.claims.until))",
    "'ops' in user.claims.realm_access.roles",
    "!('evil' in user.claims.realm_access.roles)",
    "['x'].all(x, x != user.claims.tenant)",
    "['a', 'b'].exists(x, x != user.claims.tenant)",
    "has(user.claims.tenant) && user.claims.tenant != 'evil'",
    "user.claims.tenant != 'evil' && has(user.claims.tenant)",
];

fn compile(text: &str) -> Expression {
    Expression::compile(text, &environment()).unwrap_or_else(|problems| panic!("{text}: {problems:?}"))
}

/// Whether the condition is one for a list, so that a list in place of its claim is what it asks for.
fn asks_for_a_list(condition: &str) -> bool {
    condition.contains("groups") || condition.contains("roles")
}

#[test]
fn nothing_passes_that_lacks_what_is_asked_for() {
    let full = Request::full();
    for condition in CONDITIONS {
        let expression = compile(condition);
        assert_eq!(expression.passes(&full), Ok(()), "{condition}: passes with everything there");
        let refused = |why: &str, request: &Request| {
            assert!(expression.passes(request).is_err(), "{condition}: {why}");
        };
        refused("anonymous", &full.clone().anonymous());
        // A service has no claims of a user's, but scopes.
        refused("service", &full.clone().every_claim(None));
        refused("claim null or a number", &full.clone().every_claim(Some(&Claim::Other)));
        refused("claim twice", &full.clone().every_claim(Some(&Claim::Twice)));
        if asks_for_a_list(condition) {
            // The size of a string is its length, and a claim equals itself whatever it is.
            if !condition.contains("size") && !condition.contains("groups == user.claims.groups") {
                refused("a string for a list", &full.clone().every_claim(Some(&text("staff"))));
            }
        } else if !condition.starts_with("size") && !condition.contains("user.claims.tenant == user.claims.tenant") {
            refused("a list for a string", &full.clone().every_claim(Some(&texts(&["acme"]))));
        }
        let cost = expression.passes_within(&full, 2);
        assert!(matches!(cost, Err(Refused::Error(Error { why: Why::Cost, .. }))), "{condition}: {cost:?}");
    }
}

#[test]
fn what_is_missing_elsewhere_refuses_too() {
    for (condition, lacking) in [
        ("path.user_id == user.app_id", "user.app_id"),
        ("path.team != user.app_id", "user.app_id"),
        ("user.id != 'x'", "user.id"),
        ("!(user.email == 'x')", "user.email"),
        ("!('admin' in user.roles)", "user.roles"),
        ("user.roles.all(r, r != 'x')", "user.roles"),
        ("!('a' in user.permissions)", "user.permissions"),
        ("!('a' in token.scopes)", "token.scopes"),
        ("size(token.scopes) < 5", "token.scopes"),
    ] {
        let expression = compile(condition);
        assert_eq!(expression.passes(&Request::full()), Ok(()), "{condition}");
        let missing = expression.passes(&Request::full().without(lacking));
        assert!(matches!(missing, Err(Refused::Error(Error { why: Why::Missing, .. }))), "{condition}: {missing:?}");
        let other = expression.passes(&Request::full().value(lacking, Claim::Other));
        assert!(matches!(other, Err(Refused::Error(Error { why: Why::Type, .. }))), "{condition}: {other:?}");
    }
}

#[test]
fn a_name_that_is_there_twice_refuses_wherever_it_is_mentioned() {
    for condition in [
        "query.tenant == 'acme'",
        "query.tenant != 'evil'",
        "true || query.tenant == 'acme'",
        "method == 'GET' || query.tenant == 'acme'",
        "has(query.tenant)",
        "!has(query.nothing) && (true || has(query.tenant))",
        "'tenant' in query",
        "query['tenant'] == 'acme'",
        "query['ten' + 'ant'] == 'acme'",
        "true ? true : query.tenant == 'x'",
    ] {
        let expression = compile(condition);
        assert_eq!(expression.passes(&Request::full()), Ok(()), "{condition}");
        let twice = expression.passes(&Request::full().query("tenant", Claim::Twice));
        assert!(matches!(twice, Err(Refused::Error(Error { why: Why::Repeated, .. }))), "{condition}: {twice:?}");
    }
    let others = compile("query.page == '3'").passes(&Request::full().query("tenant", Claim::Twice));
    assert_eq!(others, Ok(()), "a name that nobody asks about may be there twice");
}

#[test]
fn errors_are_not_absorbed() {
    for condition in [
        "user.claims.nothing == 'x' || true",
        "true && (user.claims.nothing == 'x' || true)",
        "!(user.claims.nothing == 'x' && false)",
        "['a', 'b'].exists(x, x == user.claims.nothing || x == 'a')",
        "!['a', 'b'].all(x, x == user.claims.nothing)",
        "int(query.tenant) == 3 || true",
        "1 / int('0') == 1 || true",
        "user.roles[100] == 'x' || true",
        "address.inNetwork('10.0.0.0/8') && user.id.inNetwork('10.0.0.0/8') || true",
    ] {
        let outcome = compile(condition).passes(&Request::full());
        assert!(matches!(outcome, Err(Refused::Error(_))), "{condition}: {outcome:?}");
    }
    assert_eq!(
        compile("has(user.claims.nothing) && user.claims.nothing == 'x'").passes(&Request::full()),
        Err(Refused::False)
    );
}

#[test]
fn only_the_canonical_spelling_of_a_number_is_one() {
    for page in ["03", "+3", " 3", "3 ", "3.0", "3_0", "٣", "-0", "", "0x3", "99999999999999999999"] {
        let outcome = compile("int(query.page) < 100").passes(&Request::full().query("page", text(page)));
        assert!(matches!(outcome, Err(Refused::Error(Error { why: Why::Conversion, .. }))), "{page:?}: {outcome:?}");
    }
    for sum in ["9223372036854775807 + int(query.page) > 0", "-9223372036854775807 - int(query.page) < 0"] {
        let outcome = compile(sum).passes(&Request::full());
        assert!(matches!(outcome, Err(Refused::Error(Error { why: Why::Overflow, .. }))), "{sum}: {outcome:?}");
    }
}

#[test]
fn cost_is_bounded_by_what_a_request_holds() {
    let roles: Vec<String> = (0..3_000).map(|number| format!("role-{number}")).collect();
    let many = Request::full().value("user.roles", Claim::Texts(roles));
    let nested = compile("user.roles.all(a, user.roles.all(b, a != b + 'x'))").passes(&many);
    assert!(matches!(nested, Err(Refused::Error(Error { why: Why::Cost, .. }))), "{nested:?}");
    assert_eq!(compile("'role-2999' in user.roles").passes(&many), Ok(()));
    let long = Request::full().value("user.email", text(&"a".repeat(MAX_STEPS as usize + 1)));
    let pattern = compile("!user.email.matches('^b')").passes(&long);
    assert!(matches!(pattern, Err(Refused::Error(Error { why: Why::Cost, .. }))), "{pattern:?}");
    let doubled = format!("size({}) > 0", vec!["user.email"; 35].join(" + "));
    let grown = compile(&doubled).passes(&long);
    assert!(matches!(grown, Err(Refused::Error(Error { why: Why::Cost, .. }))), "{grown:?}");
}

/// Expressions that are mostly well formed, so that much of them compiles.
fn expressions() -> impl Strategy<Value = String> {
    let text = prop_oneof![
        Just("user.id"),
        Just("path.team"),
        Just("query.tenant"),
        Just("user.claims.tenant"),
        Just("user.claims.realm_access.x"),
        Just("'acme'"),
        Just("user.roles[1]"),
        Just("string(size(user.roles))"),
        Just("user.claims.nothing"),
    ];
    let list = prop_oneof![Just("user.roles"), Just("user.claims.groups"), Just("['acme', 'red']"), Just("[]")];
    let leaf = prop_oneof![
        (text.clone(), text.clone()).prop_map(|(a, b)| format!("{a} == {b}")),
        (text.clone(), text.clone()).prop_map(|(a, b)| format!("{a} != {b}")),
        (text.clone(), list.clone()).prop_map(|(a, b)| format!("{a} in {b}")),
        (text.clone(), text.clone()).prop_map(|(a, b)| format!("{a}.contains({b})")),
        (text, list).prop_map(|(a, b)| format!("{b}.exists(x, x == {a})")),
        Just("int(query.page) > 2".to_owned()),
        Just("now.getHours() < 7".to_owned()),
        Just("true".to_owned()),
    ];
    leaf.prop_recursive(5, 40, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} && {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} || {b})")),
            inner.clone().prop_map(|a| format!("!({a})")),
            (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_text_is_read_without_panic(text in "\\PC{0,80}") {
        if let Err(problems) = Expression::compile(&text, &environment()) {
            prop_assert!(!problems.is_empty());
            for problem in problems {
                prop_assert!(text.get(problem.at.offset..problem.at.offset + problem.at.len).is_some());
            }
        }
    }

    #[test]
    fn any_tokens_are_read_without_panic(
        tokens in proptest::collection::vec(proptest::sample::select(vec![
            "user", ".", "id", "roles", "query", "[", "]", "(", ")", "'a'", "7", "==", "in", "&&", "||", "!", "?", ":", ",",
            "exists", "x", "has", "size", "-", "+", "now", "true", "<",
        ]), 0..24)
    ) {
        let _ = Expression::compile(&tokens.join(" "), &environment()).map(|e| e.passes(&Request::full()));
    }

    /// Less in the request never lets more through: without `has`, a condition that passes a request passes it with
    /// everything there as well.
    #[test]
    fn taking_away_never_lets_through(
        condition in expressions(),
        lacks in proptest::collection::vec(proptest::sample::select(vec!["user.id", "path.team", "user.roles", "user.app_id"]), 0..3),
        claim in proptest::option::of(proptest::sample::select(vec!["tenant", "groups", "realm_access"])),
        page in any::<bool>(),
    ) {
        let expression = compile(&condition);
        let mut request = Request::full();
        for lacking in lacks {
            request = request.without(lacking);
        }
        if let (Some(claim), Some(claims)) = (claim, &mut request.claims) {
            claims.remove(claim);
        }
        if page {
            request.query.remove("page");
        }
        if expression.passes(&request).is_ok() {
            prop_assert_eq!(expression.passes(&Request::full()), Ok(()), "{}", condition);
        }
    }

    #[test]
    fn no_more_steps_than_allowed(condition in expressions(), steps in 0_u32..200) {
        let expression = compile(&condition);
        let (bounded, free) = (expression.passes_within(&Request::full(), steps), expression.passes(&Request::full()));
        let cost = matches!(bounded, Err(Refused::Error(Error { why: Why::Cost, .. })));
        prop_assert!(cost || bounded == free, "{}", condition);
    }
}
