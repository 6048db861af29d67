//! Transformations: what `t:…` does to a value before the operator sees it.
//!
//! Each reads the input and appends the whole result to `out`; none fails. Output is at most four times as long as
//! the input (`hexEncode` twice, `utf8toUnicode` up to three and a half times, `urlEncode` three times), which with a
//! limit on values bounds a whole chain together with [`MAX_OUTPUT`].

mod comments;
mod digest;
mod encode;
mod entity;
mod misc;
mod path;
mod script;
mod space;
mod unicode;
mod url;

use crate::fast::mask::{ALWAYS, mask, trigger};

pub(crate) use unicode::UnicodeMap;

/// Longest result of a transformation; the rest is cut off. Only chains of encoders could come near it.
pub(crate) const MAX_OUTPUT: usize = 16 << 20;

macro_rules! transforms {
    ($($name:ident $text:literal $(| $alias:literal)* => $function:expr,)*) => {
        /// One transformation.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub(crate) enum Transform { $($name,)* }

        impl Transform {
            #[cfg(any(test, feature = "fuzzing"))]
            pub(crate) const ALL: &'static [Transform] = &[$(Transform::$name,)*];
            pub(crate) const NAMES: &'static [&'static str] = &[$($text,)*];

            /// Finds a transformation by name, in any case.
            pub(crate) fn find(name: &str) -> Option<Transform> {
                let name = name.to_ascii_lowercase();
                $(if name.eq_ignore_ascii_case($text) $(|| name.eq_ignore_ascii_case($alias))* { return Some(Transform::$name); })*
                None
            }

            #[cfg(any(test, feature = "fuzzing"))]
            pub(crate) fn name(self) -> &'static str {
                Self::NAMES[self as usize]
            }

            /// Appends the transformed `input` to `out`.
            pub(crate) fn apply(self, map: Option<&UnicodeMap>, input: &[u8], out: &mut Vec<u8>) {
                let start = out.len();
                match self { $(Transform::$name => { let f: fn(Option<&UnicodeMap>, &[u8], &mut Vec<u8>) = $function; f(map, input, out) })* }
                out.truncate(start.saturating_add(MAX_OUTPUT));
            }
        }
    };
}

transforms! {
    Base64Decode "base64Decode" => |_, i, o| encode::base64_decode(i, o),
    Base64DecodeExt "base64DecodeExt" => |_, i, o| encode::base64_decode_ext(i, o),
    Base64Encode "base64Encode" => |_, i, o| encode::base64_encode(i, o),
    CmdLine "cmdLine" => |_, i, o| script::cmd_line(i, o),
    CompressWhitespace "compressWhitespace" => |_, i, o| space::compress(i, o),
    CssDecode "cssDecode" => |_, i, o| script::css_decode(i, o),
    EscapeSeqDecode "escapeSeqDecode" => |_, i, o| script::escape_seq_decode(i, o),
    HexDecode "hexDecode" => |_, i, o| encode::hex_decode(i, o),
    HexEncode "hexEncode" => |_, i, o| encode::hex_encode(i, o),
    HtmlEntityDecode "htmlEntityDecode" => |_, i, o| entity::decode(i, o),
    JsDecode "jsDecode" => |_, i, o| script::js_decode(i, o),
    Length "length" => |_, i, o| crate::text::push_number(o, i.len() as i64),
    Lowercase "lowercase" => |_, i, o| o.extend(i.iter().map(u8::to_ascii_lowercase)),
    Md5 "md5" => |_, i, o| o.extend_from_slice(&digest::md5(i)),
    NormalisePath "normalisePath" | "normalizePath" => |_, i, o| path::normalise(i, false, o),
    NormalisePathWin "normalisePathWin" | "normalizePathWin" => |_, i, o| path::normalise(i, true, o),
    ParityEven7bit "parityEven7bit" => |_, i, o| misc::parity(i, misc::Parity::Even, o),
    ParityOdd7bit "parityOdd7bit" => |_, i, o| misc::parity(i, misc::Parity::Odd, o),
    ParityZero7bit "parityZero7bit" => |_, i, o| misc::parity(i, misc::Parity::Zero, o),
    PhpArgsNames "phpArgsNames" => |_, i, o| misc::php_args_names(i, o),
    RemoveComments "removeComments" => |_, i, o| comments::remove(i, o),
    RemoveCommentsChar "removeCommentsChar" => |_, i, o| comments::remove_char(i, o),
    RemoveNulls "removeNulls" => |_, i, o| o.extend(i.iter().filter(|b| **b != 0)),
    RemoveWhitespace "removeWhitespace" => |_, i, o| space::remove(i, o),
    ReplaceComments "replaceComments" => |_, i, o| comments::replace(i, o),
    ReplaceNulls "replaceNulls" => |_, i, o| o.extend(i.iter().map(|b| if *b == 0 { b' ' } else { *b })),
    Sha1 "sha1" => |_, i, o| o.extend_from_slice(&digest::sha1(i)),
    SqlHexDecode "sqlHexDecode" => |_, i, o| encode::sql_hex_decode(i, o),
    Trim "trim" => |_, i, o| o.extend_from_slice(space::trim_left(space::trim_right(i))),
    TrimLeft "trimLeft" => |_, i, o| o.extend_from_slice(space::trim_left(i)),
    TrimRight "trimRight" => |_, i, o| o.extend_from_slice(space::trim_right(i)),
    Uppercase "uppercase" => |_, i, o| o.extend(i.iter().map(u8::to_ascii_uppercase)),
    UrlDecode "urlDecode" => |_, i, o| url::decode(i, o),
    UrlDecodeUni "urlDecodeUni" => url::decode_uni,
    UrlEncode "urlEncode" => |_, i, o| url::encode(i, o),
    Utf8ToUnicode "utf8toUnicode" => |_, i, o| unicode::utf8_to_unicode(i, o),
}

/// The whole chain, with `skip` without what would change nothing; intermediate results go through two buffers that the caller keeps.
pub(crate) fn apply_chain(
    chain: &[Transform],
    map: Option<&UnicodeMap>,
    input: &[u8],
    out: &mut Vec<u8>,
    spare: &mut Vec<u8>,
    skip: bool,
) {
    out.clear();
    out.extend_from_slice(input);
    let mut kinds = if skip { mask(out, 1) } else { ALWAYS };
    for transform in chain {
        // A transformation without its trigger changes at most case, and those that do have to be applied.
        let folds = matches!(transform, Transform::Lowercase | Transform::Uppercase | Transform::CmdLine);
        // What does not begin with base64 decodes to nothing, which is a change.
        let empties = *transform == Transform::Base64Decode;
        if skip && !folds && !empties && trigger(*transform) & (kinds | ALWAYS) == 0 {
            continue;
        }
        spare.clear();
        transform.apply(map, out, spare);
        std::mem::swap(out, spare);
        if skip && !matches!(transform, Transform::Lowercase | Transform::Uppercase) {
            kinds = mask(out, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_found_in_any_case() {
        assert_eq!(Transform::find("URLDECODEUNI"), Some(Transform::UrlDecodeUni));
        assert_eq!(Transform::find("normalizePath"), Some(Transform::NormalisePath));
        assert_eq!(Transform::find("nope"), None);
        assert!(Transform::ALL.iter().all(|t| Transform::find(t.name()) == Some(*t)));
    }

    proptest! {
        #[test]
        fn any_bytes_through_any_transformation(input in proptest::collection::vec(any::<u8>(), 0..200), which in 0..Transform::ALL.len()) {
            let mut out = Vec::new();
            Transform::ALL[which].apply(None, &input, &mut out);
            prop_assert!(out.len() <= 8 * input.len() + 24);
        }

        #[test]
        fn escapes_through_any_transformation(input in r"[%&#;\\ux0-9a-f/*.<>!+= \-]{0,60}", which in 0..Transform::ALL.len()) {
            let mut out = Vec::new();
            Transform::ALL[which].apply(None, input.as_bytes(), &mut out);
            prop_assert!(out.len() <= 8 * input.len() + 24);
        }
    }
}
