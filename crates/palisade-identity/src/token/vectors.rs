//! Wycheproof's vectors, through the same code that requests use.

use std::collections::BTreeMap;
use std::fs;

use palisade_test::vectors;
use serde_json::Value;

use super::json::base64url;
use super::{Algorithm, Keys, VerifyingKey};

/// Vectors whose stated result is not ours, each with the reason. An entry that comes to agree fails the test.
const EXCEPTIONS: [(&str, u64, &str); 8] = [
    ("json_web_signature", 346, "the key's `alg` is PS256 and the token's PS384: the key decides"),
    ("json_web_signature", 350, "the key's `alg` is PS256 and the token's PS384: the key decides"),
    ("json_web_signature", 367, "byte for byte the token of 357, which is valid"),
    ("json_web_signature", 370, "byte for byte the token of 357, which is valid"),
    ("json_web_signature", 372, "a `?` inside base64url: one value has one spelling"),
    ("json_web_signature", 373, "a `?` inside base64url: one value has one spelling"),
    ("json_web_crypto", 50, "an encrypted token: we make and take none"),
    ("json_web_crypto", 67, "an encrypted token: we make and take none"),
];

fn groups(file: &str) -> Option<Vec<Value>> {
    let text = fs::read(vectors("jose-vectors")?.join(format!("{file}.json"))).expect("a file of the set");
    let mut document: Value = serde_json::from_slice(&text).expect("JSON");
    let groups = document["testGroups"].take();
    groups.as_array().cloned()
}

/// A key or a set, with the one misspelling of the vectors mended (`ES521`, see their README).
fn keys(group: &Value) -> Option<Keys> {
    let mut jwk = if group["public"].is_null() { &group["private"] } else { &group["public"] }.clone();
    let list: Vec<&mut Value> = match jwk.get("keys").is_some() {
        true => jwk["keys"].as_array_mut().expect("a list").iter_mut().collect(),
        false => vec![&mut jwk],
    };
    for key in list {
        if key["alg"] == "ES521" {
            key["alg"] = "ES512".into();
        }
    }
    if jwk.get("keys").is_some() {
        return Keys::from_jwk_set(jwk.to_string().as_bytes(), None).ok().map(|(keys, _)| keys);
    }
    let key = VerifyingKey::from_jwk(jwk.to_string().as_bytes(), None).ok()?;
    Keys::new([key]).ok()
}

/// Runs the tokens of a file and counts (accepted, refused).
fn run(file: &str) -> Option<(u32, u32)> {
    let mut exceptions: BTreeMap<u64, &str> =
        EXCEPTIONS.iter().filter(|(name, ..)| *name == file).map(|(_, id, why)| (*id, *why)).collect();
    let (mut accepted, mut refused, mut wrong) = (0, 0, Vec::new());
    for group in groups(file)? {
        let keys = keys(&group);
        for test in group["tests"].as_array().expect("tests") {
            let token = if test["jws"].is_null() { &test["jwe"] } else { &test["jws"] };
            // The JSON serialization is no compact token: as text it is refused like any other text.
            let token = token.as_str().map_or_else(|| token.to_string(), Into::into);
            let ours = keys.as_ref().is_some_and(|keys| keys.verify(&token).is_ok());
            if ours {
                accepted += 1
            } else {
                refused += 1
            }
            let id = test["tcId"].as_u64().expect("a number");
            let expected = match test["result"].as_str() {
                Some("valid") => true,
                Some("invalid") => false,
                other => panic!("unknown result {other:?}"),
            };
            let agrees = ours == expected;
            if agrees == exceptions.remove(&id).is_some() {
                wrong.push(format!("{id} {}: expected {expected}, got {ours}", test["comment"]));
            }
        }
    }
    assert!(wrong.is_empty() && exceptions.is_empty(), "{file}: {wrong:#?} {exceptions:?}");
    Some((accepted, refused))
}

#[test]
fn signatures() {
    if let Some(counts) = run("json_web_signature") {
        assert_eq!(counts, (44, 357));
    }
}

#[test]
fn keys_that_probe() {
    if let Some(counts) = run("json_web_key") {
        assert_eq!(counts, (5, 21));
    }
}

#[test]
fn mixed_up_tokens_and_keys() {
    if let Some(counts) = run("json_web_crypto") {
        assert_eq!(counts, (4, 79));
    }
}

/// Encrypted tokens are of no use to us: none of them, right or wrong, passes for a signed one.
#[test]
fn encrypted_tokens_are_not_signed_ones() {
    let Some(groups) = groups("json_web_encryption") else { return };
    let mut ran = 0;
    for group in groups {
        let keys = keys(&group);
        for test in group["tests"].as_array().expect("tests") {
            let token = test["jwe"].as_str().map_or_else(|| test["jwe"].to_string(), Into::into);
            assert!(keys.as_ref().is_none_or(|keys| keys.verify(&token).is_err()), "{}", test["tcId"]);
            ran += 1;
        }
    }
    assert_eq!(ran, 139);
}

#[test]
fn ed25519() {
    let Some(groups) = groups("ed25519") else { return };
    let hex = |value: &Value| {
        data_encoding::HEXLOWER_PERMISSIVE.decode(value.as_str().expect("hex").as_bytes()).expect("hex")
    };
    let (mut valid, mut invalid) = (0, 0);
    for group in groups {
        let mut jwk = group["publicKeyJwk"].clone();
        if jwk.is_null() {
            continue;
        }
        // Some keys of the file have a `kid` of "none".
        jwk["kid"].take();
        jwk.as_object_mut().expect("an object").remove("kid");
        let key = VerifyingKey::from_jwk(jwk.to_string().as_bytes(), None).expect("a key");
        assert_eq!(key.algorithm(), Algorithm::EdDsa);
        for test in group["tests"].as_array().expect("tests") {
            let ours = key.verifies(&hex(&test["msg"]), &hex(&test["sig"]));
            assert_eq!(ours, test["result"] == "valid", "{} {}", test["tcId"], test["comment"]);
            if ours { valid += 1 } else { invalid += 1 }
        }
    }
    assert_eq!(valid + invalid, 151);
    assert!(valid > 0 && invalid > 0);
}

/// Keys for key agreement check no signature, whatever they claim.
#[test]
fn agreement_keys_are_no_signing_keys() {
    for file in ["x25519_jwk", "x448_jwk"] {
        let Some(groups) = groups(file) else { return };
        let mut ran = 0;
        for group in groups {
            for test in group["tests"].as_array().expect("tests") {
                let key = VerifyingKey::from_jwk(test["public"].to_string().as_bytes(), None);
                // A few hold a key of another curve, to see whether it is agreed on.
                let other = matches!(test["public"]["crv"].as_str(), Some("P-256" | "P-384" | "P-521"));
                assert_eq!(key.is_ok(), other, "{file} {}", test["tcId"]);
                ran += 1;
            }
        }
        assert!(ran > 500, "{file}: {ran}");
    }
}

/// The vectors' ROCA key also has a leading zero; this shows that the fingerprint alone is seen.
#[test]
fn roca_is_seen_by_itself() {
    let Some(groups) = groups("json_web_key") else { return };
    let group = groups.iter().find(|group| group["comment"] == "jws_rsa_roca_key").expect("the group");
    let key = if group["public"]["keys"].is_array() { &group["public"]["keys"][0] } else { &group["public"] };
    let n = base64url(key["n"].as_str().expect("n")).expect("base64url");
    let n: Vec<u8> = n.into_iter().skip_while(|byte| *byte == 0).collect();
    assert!(super::roca::is_suspicious(&n));
    assert_eq!(VerifyingKey::rsa(Algorithm::Rs256, &n, &[1, 0, 1]).err(), Some(super::BadKey::Weak));
}
