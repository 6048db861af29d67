//! Content types by extension. What is not listed is bytes that nobody interprets (`application/octet-stream`): with
//! `nosniff` a browser neither shows nor runs it.

/// Extension, type, whether it is worth compressing. Text is UTF-8, as a site that is new says everywhere.
const TYPES: &[(&str, &str, bool)] = &[
    ("html", "text/html; charset=utf-8", true),
    ("htm", "text/html; charset=utf-8", true),
    ("css", "text/css; charset=utf-8", true),
    ("js", "text/javascript; charset=utf-8", true),
    ("mjs", "text/javascript; charset=utf-8", true),
    ("json", "application/json", true),
    ("map", "application/json", true),
    ("webmanifest", "application/manifest+json", true),
    ("jsonld", "application/ld+json", true),
    ("geojson", "application/geo+json", true),
    ("wasm", "application/wasm", true),
    ("svg", "image/svg+xml", true),
    ("svgz", "image/svg+xml", false),
    ("png", "image/png", false),
    ("jpg", "image/jpeg", false),
    ("jpeg", "image/jpeg", false),
    ("gif", "image/gif", false),
    ("webp", "image/webp", false),
    ("avif", "image/avif", false),
    ("jxl", "image/jxl", false),
    ("heic", "image/heic", false),
    ("bmp", "image/bmp", true),
    ("ico", "image/vnd.microsoft.icon", true),
    ("tif", "image/tiff", false),
    ("tiff", "image/tiff", false),
    ("woff", "font/woff", false),
    ("woff2", "font/woff2", false),
    ("ttf", "font/ttf", true),
    ("otf", "font/otf", true),
    ("txt", "text/plain; charset=utf-8", true),
    ("log", "text/plain; charset=utf-8", true),
    ("md", "text/markdown; charset=utf-8", true),
    ("csv", "text/csv; charset=utf-8", true),
    ("tsv", "text/tab-separated-values; charset=utf-8", true),
    ("ics", "text/calendar; charset=utf-8", true),
    ("vcf", "text/vcard; charset=utf-8", true),
    ("vtt", "text/vtt; charset=utf-8", true),
    ("xml", "application/xml", true),
    ("xhtml", "application/xhtml+xml", true),
    ("xsl", "application/xml", true),
    ("rss", "application/rss+xml", true),
    ("atom", "application/atom+xml", true),
    ("yaml", "application/yaml", true),
    ("yml", "application/yaml", true),
    ("toml", "application/toml", true),
    ("pdf", "application/pdf", false),
    ("rtf", "application/rtf", true),
    ("epub", "application/epub+zip", false),
    ("doc", "application/msword", false),
    ("docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document", false),
    ("xls", "application/vnd.ms-excel", false),
    ("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", false),
    ("ppt", "application/vnd.ms-powerpoint", false),
    ("pptx", "application/vnd.openxmlformats-officedocument.presentationml.presentation", false),
    ("odt", "application/vnd.oasis.opendocument.text", false),
    ("ods", "application/vnd.oasis.opendocument.spreadsheet", false),
    ("zip", "application/zip", false),
    ("gz", "application/gzip", false),
    ("br", "application/octet-stream", false),
    ("zst", "application/zstd", false),
    ("bz2", "application/x-bzip2", false),
    ("xz", "application/x-xz", false),
    ("7z", "application/x-7z-compressed", false),
    ("tar", "application/x-tar", true),
    ("tgz", "application/gzip", false),
    ("mp3", "audio/mpeg", false),
    ("m4a", "audio/mp4", false),
    ("aac", "audio/aac", false),
    ("ogg", "audio/ogg", false),
    ("oga", "audio/ogg", false),
    ("opus", "audio/ogg", false),
    ("flac", "audio/flac", false),
    ("wav", "audio/wav", false),
    ("weba", "audio/webm", false),
    ("mp4", "video/mp4", false),
    ("m4v", "video/mp4", false),
    ("webm", "video/webm", false),
    ("ogv", "video/ogg", false),
    ("mov", "video/quicktime", false),
    ("m3u8", "application/vnd.apple.mpegurl", true),
    ("mpd", "application/dash+xml", true),
    ("glb", "model/gltf-binary", false),
    ("gltf", "model/gltf+json", true),
];

/// What nobody interprets.
const UNKNOWN: &str = "application/octet-stream";

/// The ending of a file's name, where it has one, without the dot.
pub(super) fn extension(name: &[u8]) -> Option<&str> {
    let name = name.rsplit(|byte| *byte == b'/').next()?;
    let name = std::str::from_utf8(name).ok()?;
    name.rsplit_once('.').filter(|(stem, _)| !stem.is_empty()).map(|(_, ending)| ending)
}

/// The type of a file, and whether compressed forms of it are looked for.
pub(super) fn of(name: &[u8]) -> (&'static str, bool) {
    let found = extension(name).and_then(|ending| TYPES.iter().find(|known| known.0.eq_ignore_ascii_case(ending)));
    found.map_or((UNKNOWN, false), |(_, kind, compressible)| (kind, *compressible))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_by_extension() {
        for (name, kind, compressible) in [
            ("a.js", "text/javascript; charset=utf-8", true),
            ("a/b.HTML", "text/html; charset=utf-8", true),
            ("a.tar.gz", "application/gzip", false),
            ("a.min.css", "text/css; charset=utf-8", true),
            ("LICENSE", UNKNOWN, false),
            ("a.php", UNKNOWN, false),
            ("dir.js/plain", UNKNOWN, false),
            ("a.", UNKNOWN, false),
            ("logo.svg", "image/svg+xml", true),
        ] {
            assert_eq!(of(name.as_bytes()), (kind, compressible), "{name}");
        }
        let mut endings: Vec<_> = TYPES.iter().map(|known| known.0).collect();
        endings.sort_unstable();
        endings.dedup();
        assert_eq!(endings.len(), TYPES.len(), "an extension twice");
    }
}
