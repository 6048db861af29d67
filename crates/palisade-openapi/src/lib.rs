//! What an application's OpenAPI document (3.0 to 3.2) says of its operations: whom each is for, and which of them a path
//! means. No HTTP, no async, no I/O.
//!
//! Guide sections 1 and 2; threats 13. Whoever can change the document must not gain by it: it is read within limits
//! ([`MAX_BYTES`], [`MAX_OPERATIONS`], a depth of 128), a member twice is an error, and nothing is ever looked up elsewhere.
//! What is not needed is skipped where it stands and takes no memory.
//!
//! ```
//! use palisade_openapi::{Document, Method};
//!
//! let text = br#"{"openapi":"3.1.0","paths":{
//!     "/items/{id}":{"get":{"security":[{"login":["items:read"]}]}},
//!     "/items/new":{"get":{}}},
//!   "components":{"securitySchemes":{"login":{"type":"http","scheme":"bearer"}}}}"#;
//! let document = Document::parse(text).expect("a document");
//! let found = document.find("/items/7", Method::Get);
//! assert_eq!(document.operation(found[0]).security.alternatives()[0].demands()[0].scopes, ["items:read".into()]);
//! // The application tries its routes in the order of the document: `/items/new` is `/items/{id}` there, too.
//! assert_eq!(document.find("/items/new", Method::Get).len(), 2);
//! assert!(document.find("/items", Method::Get).is_empty());
//! ```

mod document;
mod paths;
mod read;
mod security;
mod template;

pub use document::{Bad, Document, MAX_BYTES, MAX_OPERATIONS, Method, Operation};
pub use security::{Alternative, Demand, KeyPlace, Scheme, Security};
pub use template::{BadTemplate, Template};
