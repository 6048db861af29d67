//! The sections of the guide *Securing FastAPI Applications*, which give codes, pages and the checklist their numbers.

/// A section of the guide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section {
    /// Its number.
    pub number: u8,
    /// Its folder in the documentation, behind the number.
    pub slug: &'static str,
    /// Its title.
    pub title: &'static str,
}

/// All sections; 22 is the checklist.
pub static SECTIONS: [Section; 22] = [
    section(1, "auth", "Authentication and authorization"),
    section(2, "validation", "Input validation and sanitization"),
    section(3, "sql-injection", "SQL injection prevention"),
    section(4, "passwords", "Password security"),
    section(5, "csrf", "CSRF protection"),
    section(6, "https", "HTTPS"),
    section(7, "secure-headers", "Secure headers"),
    section(8, "rate-limiting", "Rate limiting"),
    section(9, "cors", "Cross-origin resource sharing"),
    section(10, "sessions", "Session management"),
    section(11, "secrets", "Secrets management"),
    section(12, "encryption", "Data encryption"),
    section(13, "errors", "Error handling"),
    section(14, "uploads", "File upload security"),
    section(15, "database", "Database security"),
    section(16, "logging", "Logging and monitoring"),
    section(17, "static-files", "Static file handling"),
    section(18, "dependency-injection", "Dependency injection"),
    section(19, "dependencies", "Dependency management"),
    section(20, "practices", "Security best practices"),
    section(21, "advanced", "Advanced protections"),
    section(22, "checklist", "Checklist for deployment"),
];

const fn section(number: u8, slug: &'static str, title: &'static str) -> Section {
    Section { number, slug, title }
}

/// The folder of a section in the documentation: `09-cors`.
pub fn folder(number: u8) -> String {
    let section = SECTIONS.iter().find(|section| section.number == number);
    format!("{number:02}-{}", section.map_or("", |section| section.slug))
}

/// The fixed sections of the policy, with the section of the guide that they belong to.
pub static FIXED: [(&str, u8); 12] = [
    ("server", 6),
    ("upstream", 21),
    ("upstreams", 21),
    ("tls", 6),
    ("secrets", 11),
    ("mail", 1),
    ("log", 16),
    ("route", 1),
    ("session", 10),
    ("password", 4),
    ("database", 15),
    ("redis", 8),
];

/// Those of them that hold keys of controls: `server.hosts`, `cors` of a route.
pub static HOLDERS: [&str; 4] = ["server", "upstream", "upstreams", "route"];

/// For each section of the policy: its name, the guide's section, its page in the documentation.
pub fn pages() -> Vec<(&'static str, u8, String)> {
    let controls = crate::controls::INFOS.iter().map(|info| (info.name, info.section));
    FIXED
        .into_iter()
        .chain(controls)
        .map(|(name, number)| (name, number, format!("{}/{name}.html", folder(number))))
        .collect()
}
