//! Five harmless requests: a query, a small JSON body, a small form, few long and many short JSON values.
//!
//! The benchmark of the gateway sends the same ones.

/// A request.
pub(crate) struct Request {
    pub name: &'static str,
    pub method: &'static str,
    pub target: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

const WORDS: &[&str] = &[
    "garden", "river", "market", "window", "coffee", "letter", "winter", "bridge", "morning", "paper", "silver",
    "music", "little", "green", "answer", "travel", "number", "people", "water", "house", "school", "table", "story",
    "summer", "light", "quiet",
];

/// Text of about `length` bytes, a sentence now and then.
fn prose(seed: usize, length: usize) -> String {
    let mut out = String::new();
    let mut n = seed;
    while out.len() < length {
        n = n.wrapping_mul(1103515245).wrapping_add(12345);
        out.push_str(WORDS[(n >> 16) % WORDS.len()]);
        out.push_str(if (n >> 8).is_multiple_of(9) { ". " } else { " " });
    }
    out.truncate(length);
    out.trim_end().to_owned()
}

fn headers(kind: Option<&str>, length: usize) -> Vec<(&'static str, String)> {
    let mut out = vec![
        ("Host", "api.example.com".to_owned()),
        ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0".to_owned()),
        ("Accept", "application/json".to_owned()),
        ("Accept-Language", "en-US,en;q=0.5".to_owned()),
        ("Accept-Encoding", "gzip, deflate".to_owned()),
    ];
    if let Some(kind) = kind {
        out.push(("Content-Type", kind.to_owned()));
        out.push(("Content-Length", length.to_string()));
    }
    out
}

fn post(name: &'static str, kind: &str, body: String) -> Request {
    Request {
        name,
        method: "POST",
        target: "/api/items".into(),
        headers: headers(Some(kind), body.len()),
        body: body.into_bytes(),
    }
}

/// The five.
pub(crate) fn all() -> Vec<Request> {
    let mut small = String::from("{");
    for i in 0..11 {
        small.push_str(&format!("{}\"field_{i}\":\"{}\"", if i > 0 { "," } else { "" }, prose(i, 78)));
    }
    small.push('}');
    let form: Vec<String> = (0..8).map(|i| format!("field_{i}={}", prose(i, 116).replace(' ', "+"))).collect();
    let mut long = String::from("{");
    for i in 0..17 {
        long.push_str(&format!("{}\"text_{i}\":\"{}\"", if i > 0 { "," } else { "" }, prose(i * 7, 1910)));
    }
    long.push('}');
    let mut rows: Vec<String> = Vec::new();
    let mut leaves = 0;
    while leaves < 713 {
        let id = rows.len();
        rows.push(format!(
            "{{\"id\":{id},\"name\":\"{}\",\"email\":\"user{id}@example.com\",\"city\":\"{}\",\"price\":{}.{:02},\"active\":{},\"note\":\"{}\"}}",
            prose(id, 18),
            prose(id + 3, 8),
            id * 3,
            id % 100,
            id.is_multiple_of(2),
            prose(id + 9, 130)
        ));
        leaves += 7;
    }
    let many = format!("{{\"rows\":[{}]}}", rows.join(","));
    vec![
        Request {
            name: "a-get3",
            method: "GET",
            target: "/api/items?page=2&q=garden+chairs&sort=price_asc".into(),
            headers: headers(None, 0),
            body: Vec::new(),
        },
        post("b-json1k", "application/json", small),
        post("c-form1k", "application/x-www-form-urlencoded", form.join("&")),
        post("d-json32k-long", "application/json", long),
        post("e-json32k-leaves", "application/json", many),
    ]
}

/// One value of 32 KiB each, chosen to be hard for rules.
pub(crate) fn hard() -> Vec<Request> {
    ["<", "%25", "1=1 or ", "&lt;", "/*", "(", "\\\\u003c", "../", "a", "select union "]
        .into_iter()
        .map(|piece| {
            let value: String = piece.repeat((32 << 10) / piece.len());
            post(piece, "application/json", format!("{{\"a\":\"{value}\"}}"))
        })
        .collect()
}
