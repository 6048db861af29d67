//! The claims of a token. RFC 7519 section 4, RFC 9068 section 2.2.

use serde_json::{Map, Value};

use super::{Refused, json};

/// The end of the year 9999: later dates are mistakes or tricks.
const LAST_SECOND: i64 = 253_402_300_799;
/// The longest subject, in bytes. It becomes a header, a log field and a key of maps.
const MAX_SUBJECT_BYTES: usize = 255;

/// What a token says. Times are seconds since the Unix epoch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Claims {
    /// `iss`: who made it.
    pub issuer: Option<String>,
    /// `sub`: who it is about, as the issuer knows them.
    pub subject: Option<String>,
    /// `aud`: whom it is for.
    pub audience: Vec<String>,
    /// `exp`: from then on it is worth nothing.
    pub expires_at: Option<i64>,
    /// `nbf`: before then it is worth nothing.
    pub not_before: Option<i64>,
    /// `iat`: when it was made.
    pub issued_at: Option<i64>,
    /// `jti`: its own name, by which it is revoked.
    pub id: Option<String>,
    /// `client_id`: the client that it was given to.
    pub client: Option<String>,
    /// `scope`: what it may be used for.
    pub scope: Vec<String>,
    /// `roles`, where it is a list of texts. In any other shape it stays in `other` and grants nothing.
    pub roles: Vec<String>,
    /// All other members.
    pub other: Map<String, Value>,
}

/// The members that are no `other`.
const KNOWN: [&str; 10] = ["iss", "sub", "jti", "client_id", "aud", "exp", "nbf", "iat", "scope", "roles"];

impl Claims {
    /// Claims about a subject, without times: a signer refuses them until `expires_at` is set.
    pub fn new(issuer: &str, subject: &str, audience: impl IntoIterator<Item: Into<String>>) -> Self {
        Self {
            issuer: Some(issuer.into()),
            subject: Some(subject.into()),
            audience: audience.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    pub(super) fn read(payload: &[u8]) -> Result<Self, Refused> {
        let mut known: [Option<Value>; KNOWN.len()] = Default::default();
        let mut other = Map::new();
        json::members(payload, |name, value| {
            let before = match KNOWN.iter().position(|known| *known == name) {
                Some(place) => known[place].replace(value),
                None => other.insert(name.into_owned(), value),
            };
            before.is_none().then_some(())
        })
        .ok_or(Refused::Claims)?;
        let [issuer, subject, id, client, audience, expires_at, not_before, issued_at, scope, roles] = known;
        let text = |value| match value {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Refused::Claims),
        };
        let (issuer, subject, id, client) = (text(issuer)?, text(subject)?, text(id)?, text(client)?);
        let unfit = |subject: &String| {
            subject.is_empty() || subject.len() > MAX_SUBJECT_BYTES || subject.chars().any(char::is_control)
        };
        if subject.as_ref().is_some_and(unfit) {
            return Err(Refused::Claims);
        }
        let audience = match audience {
            None => Vec::new(),
            Some(Value::String(one)) => vec![one],
            Some(several) => texts(several).map_err(|_| Refused::Claims)?,
        };
        // A fraction makes a token end earlier and begin later, never the other way.
        let expires_at = expires_at.map(|value| seconds(&value, f64::floor)).transpose()?;
        let not_before = not_before.map(|value| seconds(&value, f64::ceil)).transpose()?;
        let issued_at = issued_at.map(|value| seconds(&value, f64::ceil)).transpose()?;
        let scope = match scope {
            None => Vec::new(),
            Some(Value::String(scopes)) => scopes.split(' ').filter(|s| !s.is_empty()).map(Into::into).collect(),
            Some(shape) => {
                other.insert("scope".into(), shape);
                Vec::new()
            }
        };
        let roles = match roles.map(texts) {
            None => Vec::new(),
            Some(Ok(roles)) => roles,
            Some(Err(shape)) => {
                other.insert("roles".into(), shape);
                Vec::new()
            }
        };
        Ok(Self { issuer, subject, audience, expires_at, not_before, issued_at, id, client, scope, roles, other })
    }

    /// As the payload of a token. One audience is a text, several are a list.
    pub(super) fn write(&self) -> Value {
        let mut members = self.other.clone();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                members.insert(name.into(), value);
            }
        };
        let text = |text: &Option<String>| text.as_deref().map(Value::from);
        put("iss", text(&self.issuer));
        put("sub", text(&self.subject));
        put(
            "aud",
            match self.audience.as_slice() {
                [] => None,
                [one] => Some(one.as_str().into()),
                several => Some(several.into()),
            },
        );
        put("exp", self.expires_at.map(Value::from));
        put("nbf", self.not_before.map(Value::from));
        put("iat", self.issued_at.map(Value::from));
        put("jti", text(&self.id));
        put("client_id", text(&self.client));
        put("scope", (!self.scope.is_empty()).then(|| self.scope.join(" ").into()));
        put("roles", (!self.roles.is_empty()).then(|| self.roles.as_slice().into()));
        Value::Object(members)
    }
}

/// A list of texts, or the value back.
fn texts(value: Value) -> Result<Vec<String>, Value> {
    match value {
        Value::Array(items) if items.iter().all(Value::is_string) => Ok(items
            .into_iter()
            .filter_map(|item| if let Value::String(text) = item { Some(text) } else { None })
            .collect()),
        other => Err(other),
    }
}

/// A NumericDate: a number, not a text that looks like one.
fn seconds(value: &Value, round: fn(f64) -> f64) -> Result<i64, Refused> {
    let whole = match (value.as_i64(), value.as_f64()) {
        (Some(whole), _) => whole,
        #[expect(clippy::cast_possible_truncation, reason = "within the range of the line above it")]
        (None, Some(real)) if (0.0..1e12).contains(&real) => round(real) as i64,
        _ => return Err(Refused::Claims),
    };
    (0..=LAST_SECOND).contains(&whole).then_some(whole).ok_or(Refused::Claims)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes() {
        let payload = br#"{"iss":"i","sub":"s","aud":["a","b"],"exp":10.9,"nbf":1.1,"iat":2,"jti":"j","client_id":"c",
            "scope":"x  y","roles":["r"],"tenant":{"id":7}}"#;
        let claims = Claims::read(payload).expect("claims");
        assert_eq!((claims.expires_at, claims.not_before, claims.issued_at), (Some(10), Some(2), Some(2)));
        assert_eq!(
            (claims.scope.as_slice(), claims.roles.as_slice()),
            (&["x".into(), "y".into()][..], &["r".into()][..])
        );
        assert_eq!(claims.other["tenant"]["id"], 7);
        assert_eq!(Claims::read(claims.write().to_string().as_bytes()), Ok(claims));
    }

    #[test]
    fn other_shapes_of_scope_and_roles_grant_nothing() {
        for payload in
            [r#"{"scope":["a"],"roles":"admin"}"#, r#"{"scope":null,"roles":[1]}"#, r#"{"scope":1,"roles":{}}"#]
        {
            let claims = Claims::read(payload.as_bytes()).expect("claims");
            assert!(claims.scope.is_empty() && claims.roles.is_empty(), "{payload}");
            assert_eq!(claims.other.len(), 2, "{payload}");
        }
    }

    #[test]
    fn refuses() {
        let long = format!(r#"{{"sub":"{}"}}"#, "s".repeat(256));
        let cases = [
            "",
            "[]",
            "null",
            r#"{"sub":7}"#,
            r#"{"sub":null}"#,
            r#"{"sub":""}"#,
            r#"{"sub":"a\u0000b"}"#,
            r#"{"sub":"a\nb"}"#,
            &long,
            r#"{"iss":["i"]}"#,
            r#"{"aud":5}"#,
            r#"{"aud":["a",5]}"#,
            r#"{"aud":null}"#,
            r#"{"exp":"10"}"#,
            r#"{"exp":null}"#,
            r#"{"exp":-1}"#,
            r#"{"exp":1e300}"#,
            r#"{"exp":99999999999999}"#,
            r#"{"exp":true}"#,
            r#"{"nbf":[]}"#,
            r#"{"iat":{}}"#,
            r#"{"jti":1}"#,
            r#"{"client_id":1}"#,
            r#"{"sub":"a","sub":"b"}"#,
            r#"{"exp":1,"exp":2}"#,
        ];
        for payload in cases {
            assert_eq!(Claims::read(payload.as_bytes()), Err(Refused::Claims), "{payload}");
        }
    }
}
