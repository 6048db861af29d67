//! An OpenAPI document, and a path that is looked up in it: nothing panics, what is found is of that path's length, and what
//! one operation asks is asked whenever it may run.

#![no_main]

use libfuzzer_sys::fuzz_target;
use palisade_openapi::{Document, Method};

fuzz_target!(|input: &[u8]| {
    // The path stands behind the last NUL.
    let (document, path) = match input.iter().rposition(|byte| *byte == 0) {
        Some(place) => (&input[..place], &input[place + 1..]),
        None => (input, &b"/"[..]),
    };
    let Ok(document) = Document::parse(document) else { return };
    let segments = |path: &str| path.split('/').filter(|segment| !segment.is_empty()).count();
    let path = String::from_utf8_lossy(path);
    for method in [Method::Get, Method::Head, Method::Post] {
        for number in document.find(&path, method) {
            let operation = document.operation(number);
            assert!(operation.method == method || (method == Method::Head && operation.method == Method::Get));
            if !path.contains("//") && !operation.path.as_str().contains("//") {
                assert_eq!(segments(operation.path.as_str()), segments(&path));
            }
        }
    }
    // An operation is found by its own path, where that has no parameters and is spelled as paths are.
    for operation in document.operations() {
        let text = operation.path.as_str();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_');
        if text.bytes().all(plain) && document.operations().len() < 100 {
            assert!(!document.find(text, operation.method).is_empty(), "{text}");
        }
    }
});
