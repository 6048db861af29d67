//! What conditions mean, and what is said of wrong ones.

use crate::sample::{Request, environment};
use crate::{Error, Expression, Refused, Why};

fn compile(text: &str) -> Expression {
    Expression::compile(text, &environment()).unwrap_or_else(|problems| panic!("{text}: {problems:?}"))
}

#[test]
fn conditions_that_hold_and_that_do_not() {
    let request = Request::full();
    for (text, holds) in [
        ("path.user_id == user.app_id || 'admin' in user.roles", true),
        ("path.user_id != user.app_id", false),
        ("path['user_id'] == '7'", true),
        ("'admin' in user.roles", false),
        ("!('admin' in user.roles)", true),
        ("query.tenant == user.claims.tenant", true),
        ("query['tenant'] == user.claims['tenant']", true),
        ("'tenant' in query && !('nothing' in query)", true),
        ("'tenant' in user.claims", true),
        ("has(query.tenant) && !has(query.nothing)", true),
        ("has(user.email) && user.email.endsWith('@example.com')", true),
        ("user.email == 'bob@example.com'", false),
        ("user.email.lowerAscii() == 'bob@example.com'", true),
        ("'staff' in user.claims.groups", true),
        ("user.claims.groups == ['staff', 'dev']", true),
        ("user.claims.groups == ['dev', 'staff']", false),
        ("user.claims.groups[0] == 'staff' && user.roles[1] == 'team-red'", true),
        ("'ops' in user.claims.realm_access.roles", true),
        ("user.claims.realm_access.roles.exists(r, r == 'ops')", true),
        ("user.roles.exists(r, r == 'team-' + path.team)", true),
        ("user.roles.all(r, r.startsWith('team-'))", false),
        ("user.permissions.all(p, p.startsWith('notes:'))", true),
        ("user.permissions.exists_one(p, p.endsWith(':read'))", true),
        ("user.permissions.exists_one(p, p.startsWith('notes'))", false),
        ("user.roles.exists(r, user.permissions.exists(p, p.contains('write') && r == 'user'))", true),
        ("token.scopes == ['notes:read'] && size(token.scopes) == 1 && token.scopes.size() < 2", true),
        ("size(user.email) == 15 && size('é') == 1", true),
        ("[1, 2, 3].all(x, x > 0) && 2 in [1, 2] && !(5 in [])", true),
        ("method in ['GET', 'HEAD']", true),
        ("method == 'GET' ? path.user_id == '7' : false", true),
        ("host == 'api.example.com'", true),
        ("address.inNetwork('10.0.0.0/8')", true),
        ("address.inNetwork('2001:db8::/32')", false),
        ("user.email.matches('^[A-Za-z]+@example\\\\.com$')", true),
        ("matches(user.email, r'^[a-z]+@example\\.com$')", false),
        ("int(query.page) >= 3 && int(query.page) * 2 - 1 == 5 && 7 / 2 == 3 && -7 % 2 == -1", true),
        ("string(int(query.page) + 1) == '4'", true),
        ("now < timestamp('2027-01-01T00:00:00Z') && now >= '2026-12-01T00:00:00Z'", true),
        ("now - timestamp('2026-11-30T00:00:00Z') == duration('24h')", true),
        ("now + duration('1h30m') > '2026-12-01T01:29:59Z' && duration('1h') < '61m'", true),
        ("timestamp(user.claims.until) > now", true),
        ("now.getDayOfWeek() == 2 && now.getHours() == 0 && now.getFullYear() == 2026", true),
        ("now.getMonth() == 11 && now.getDate() == 1 && now.getDayOfMonth() == 0", true),
        ("now.getHours() in [0, 1, 2] && now.getMinutes('UTC') == 0", true),
        ("query.q == ''", true),
        ("user.roles != user.permissions && user.roles == user.roles", true),
        ("true || user.claims.nothing == 'x'", true),
        ("false && user.claims.nothing == 'x'", false),
        ("'a' < 'b' && 'a' <= 'a' && 'b' > 'a' && 'b' >= 'b'", true),
        ("(true ? 'a' : 'b') == 'a'", true),
    ] {
        let outcome = compile(text).passes(&request);
        let expected = if holds { Ok(()) } else { Err(Refused::False) };
        assert_eq!(outcome, expected, "{text}");
    }
}

#[test]
fn wrong_conditions_are_told_what_to_write() {
    for (text, at, message, fix) in [
        ("user.role == 'a'", "role", "`user` has no `role`", "did you mean `user.roles`?"),
        ("users.id == 'a'", "users", "there is no `users`", "did you mean `user`?"),
        ("app_id == path.user_id", "app_id", "there is no `app_id`", "did you mean `user.app_id`?"),
        ("path.id == '7'", "id", "`path` has no `id`", "did you mean `user.id`?"),
        ("path.usr_id == '7'", "usr_id", "`path` has no `usr_id`", "did you mean `path.user_id`?"),
        ("request.path == '/'", "request", "there is no `request`", "known are `path`, `query`"),
        ("user == 'bob'", "user", "`user` is not a value", "name a member: `user.id`"),
        ("path[method] == 'a'", "method", "which member of `path` this is must be known", "`path['id']`"),
        ("path.user_id == 7", "path.user_id == 7", "a string and a number cannot be compared", "write `'7'`"),
        ("path.user_id > 7", "path.user_id > 7", "a string and a number cannot be compared", "`int(…)`"),
        ("user.claims.level >= 3", "user.claims.level >= 3", "cannot be compared", "`int(…)`"),
        ("user.roles == 'admin'", "user.roles == 'admin'", "cannot be compared", "`'…' in …`"),
        ("'admin' == user.roles", "'admin' == user.roles", "cannot be compared", "`'…' in …`"),
        ("user.roles.contains('admin')", "user.roles", "`contains` is for strings", "`'…' in …`"),
        ("user.roles.startsWith('a')", "user.roles", "`startsWith` is for strings", "exists(x, x.startsWith(…))"),
        ("'a' in 'abc'", "'a' in 'abc'", "a string cannot be in a string", "contains"),
        ("user.roles in ['a']", "user.roles in ['a']", "a list of strings cannot be in", "exists(x, x in …)"),
        ("7 in user.roles", "7 in user.roles", "a number cannot be in a list of strings", "quotes"),
        ("user.roles", "user.roles", "a condition is true or false", "`'admin' in user.roles`"),
        ("user.claims.admin", "user.claims.admin", "a condition is true or false", "compare it"),
        ("!user.id", "user.id", "a condition is true or false", "compare it"),
        ("user.id && true", "user.id", "a condition is true or false", "compare it"),
        ("true ? 'a' : 1", "true ? 'a' : 1", "one side of `:` is a string", "one kind"),
        ("['a', 1] == user.roles", "1", "a number in a list of strings", "not both"),
        ("user.id.starts_with('a')", "starts_with", "there is no function `starts_with`", "`….startsWith(…)`"),
        ("len(user.roles) > 1", "len", "there is no function `len`", "`size(…)`"),
        ("user.roles.any(r, r == 'a')", "any", "there is no function `any`", "`….exists(x, …)`"),
        ("user.id.size == 3", "size", "a string has no member `size`", "`.size(…)`"),
        ("user.id.matches(path.team)", "path.team", "a pattern cannot come from a request", "in quotes"),
        ("user.id.matches('(')", "'('", "this pattern cannot be read", "RE2"),
        ("user.id.matches('(a{100}){1000}')", "'(a{100}){1000}'", "this pattern takes more than", "repetitions"),
        ("address.inNetwork('10.0.0.1/8')", "'10.0.0.1/8'", "bits are set behind the prefix", "10.0.0.0/8"),
        ("address.inNetwork(query.net)", "query.net", "a network cannot come from a request", "in quotes"),
        ("now < '2027-01-01'", "'2027-01-01'", "this is not a point in time", "2027-01-31T00:00:00Z"),
        ("now < user.claims.until", "now < user.claims.until", "cannot be compared", "`timestamp(…)`"),
        ("now == user.id", "user.id", "cannot be compared with a string", "`timestamp(…)`"),
        ("duration('1d') < '1h'", "'1d'", "this is not a length of time", "1h30m"),
        ("now.getHours('Europe/Berlin') > 8", "'Europe/Berlin'", "times are in UTC", "UTC"),
        ("user.id.getHours() > 8", "user.id", "`getHours` of a string", "`now`"),
        ("has(user)", "user", "`user` is not a value", "name a member"),
        ("has(query)", "query", "`has` asks about a member", "has(query.page)"),
        ("has('a')", "'a'", "`has` asks about a member", "has(query.page)"),
        ("has(user.id, 'x')", "has(user.id, 'x')", "`has` does not take 2 arguments", "`has(…)`"),
        ("user.roles.exists(r == 'a')", "user.roles.exists(r == 'a')", "does not take 1 arguments", "(x, …)"),
        ("user.roles.exists('r', true)", "'r'", "a name was expected", "a name of your own"),
        ("user.roles.exists(user, true)", "user", "`user` is the name of something else", "another"),
        ("user.id.exists(c, true)", "user.id", "`exists` is for lists", "user.roles"),
        ("now() > now", "now", "there is no function `now`", "`now`"),
        ("size", "size", "`size` is a function", "`size(…)`"),
        ("user.roles['a'] == 'b'", "'a'", "a list of strings has no members by name", "number"),
        ("user.id[0] == 'b'", "0", "a string cannot be asked for a number", "name"),
        ("query == 'x'", "query == 'x'", "cannot be compared", "query.page"),
        ("query.a.b == 'x'", "b", "a string has no member `b`", "take the member away"),
        ("-user.id == '7'", "-user.id", "`-` before a string", "numbers"),
        ("user.id * 2 == 4", "*", "`*` between a string and a number", "compare"),
        ("null == null", "null", "there is no `null`", "has("),
        (
            "[1].exists(a, [1].exists(b, [1].exists(c, [1].exists(d, true))))",
            "[1].exists(d, true)",
            "at most 3 deep",
            "split",
        ),
    ] {
        let problems = Expression::compile(text, &environment()).expect_err(text);
        let problem = &problems[0];
        assert_eq!(problems.len(), 1, "{text}: {problems:?}");
        assert_eq!(problem.at.of(text), at, "{text}: {problem}");
        assert!(problem.message.contains(message), "{text}: {problem}");
        assert!(problem.fix.contains(fix), "{text}: {problem}");
    }
}

#[test]
fn all_problems_show_at_once() {
    let text = "user.role == 'a' && path.id == user.ids || len(user.roles) > 0";
    let problems = Expression::compile(text, &environment()).unwrap_err();
    let at: Vec<&str> = problems.iter().map(|problem| problem.at.of(text)).collect();
    assert_eq!(at, ["role", "id", "ids", "len"]);
}

#[test]
fn what_may_not_be_meant_is_a_warning() {
    for (text, at) in [
        ("user.email.matches('@example.com')", "'@example.com'"),
        ("user.email.matches('^a|b$')", "'^a|b$'"),
        ("query.page < '10'", "query.page < '10'"),
    ] {
        let expression = compile(text);
        let [warning] = expression.warnings() else { panic!("{text}: {:?}", expression.warnings()) };
        assert_eq!(warning.at.of(text), at, "{text}");
    }
    assert!(compile("user.email.matches('^a$') && user.id < 'b'").warnings().is_empty());
}

#[test]
fn an_expression_says_what_it_asks_for() {
    let expression = compile("query.tenant == user.app_id && 'page' in query && has(query['q'])");
    assert_eq!(expression.keys(), [2, 8]);
    assert_eq!(expression.members().collect::<Vec<_>>(), [(2, "tenant"), (2, "page"), (2, "q")]);
    assert_eq!(expression.text(), "query.tenant == user.app_id && 'page' in query && has(query['q'])");
}

#[test]
fn an_error_points_at_the_part_that_failed() {
    let text = "path.team == 'blue' || user.roles[9] == 'a'";
    let Err(Refused::Error(Error { why, at })) = compile(text).passes(&Request::full()) else { panic!("{text}") };
    assert_eq!((why, at.of(text)), (Why::Index, "user.roles[9]"));
}
