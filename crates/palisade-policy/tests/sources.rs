//! Several texts as one policy: files over files, includes, environment, flags.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

mod sample;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use palisade_policy::{Origin, Problems, Snapshot, Sources};
use sample::{Config, Mode};

/// A folder with files in it.
struct Folder(tempfile::TempDir);

impl Folder {
    fn with(files: &[(&str, &str)]) -> Self {
        let folder = Folder(tempfile::tempdir().unwrap());
        for (name, text) in files {
            folder.write(name, text);
        }
        folder
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, names: &[&str]) -> Result<Snapshot, Problems> {
        Snapshot::read(&names.iter().fold(Sources::new(), |sources, name| sources.file(self.path(name))))
    }

    /// The problems of reading, without the folder's name.
    fn problems(&self, names: &[&str]) -> String {
        let problems = self.read(names).expect_err("this should not be a policy");
        self.plain(&problems)
    }

    /// A line a problem, whose width does not depend on where the folder lies.
    fn listed(&self, names: &[&str]) -> String {
        let problems = self.read(names).expect_err("this should not be a policy").to_json();
        let field = |problem: &serde_json::Value, name: &str| {
            problem[name].as_str().map_or_else(|| problem[name].to_string(), str::to_owned)
        };
        let mut out = String::new();
        for problem in problems["problems"].as_array().unwrap() {
            let [file, line, column, text, message, fix] =
                ["file", "line", "column", "text", "message", "fix"].map(|name| field(problem, name));
            out.push_str(&format!("{file}:{line}:{column} | {text} | {message} | {fix}\n"));
        }
        out.replace(&format!("{}/", self.0.path().display()), "")
    }

    fn plain(&self, problems: &Problems) -> String {
        problems.render(false).replace(&format!("{}/", self.0.path().display()), "")
    }
}

fn loaded(snapshot: Snapshot) -> Config {
    let (config, problems) = sample::check(snapshot);
    config.unwrap_or_else(|| panic!("{problems}"))
}

fn line(origin: Origin) -> (String, usize) {
    match origin {
        Origin::File { file, line, .. } => (file.file_name().unwrap().to_string_lossy().into_owned(), line),
        other => panic!("{other:?} is no file"),
    }
}

#[test]
fn later_files_win_key_by_key_and_lists_of_tables_append() {
    let folder = Folder::with(&[
        (
            "a.toml",
            "[server]\nhttps = \"off\"\nhosts = [\"a\"]\n[waf]\nparanoia = 2\nexclude = [{ path = \"/a\" }]\n[[route]]\npath = \"/1\"\n[[route]]\npath = \"/2\"\n",
        ),
        (
            "b.toml",
            "[server]\nhosts = [\"b\"]\n[waf]\nexclude = [{ path = \"/b\" }]\nmode = \"off\"\n[[route]]\npath = \"/3\"\n",
        ),
    ]);
    let snapshot = folder.read(&["a.toml", "b.toml"]).unwrap();
    assert_eq!(line(snapshot.origin("server.https")), ("a.toml".into(), 2));
    assert_eq!(line(snapshot.origin("server.hosts")), ("b.toml".into(), 2));
    assert_eq!(line(snapshot.origin("route[1].path")), ("a.toml".into(), 10));
    assert_eq!(line(snapshot.origin("route[2].path")), ("b.toml".into(), 7));
    assert_eq!(snapshot.origin("server.drain"), Origin::Default);
    assert_eq!(snapshot.len("route"), 3);
    assert_eq!(snapshot.base_dir("server.https"), folder.0.path());
    let config = loaded(snapshot);
    assert_eq!(config.server.hosts, ["b"]);
    assert_eq!(config.server.https, "off");
    assert_eq!((config.waf.paranoia, config.waf.mode), (2, Mode::Off));
    // A list within one line is a value and is replaced.
    assert_eq!(config.waf.exclude.iter().map(|exclude| exclude.path.as_str()).collect::<Vec<_>>(), ["/b"]);
    assert_eq!(config.route.iter().map(|route| route.path.as_str()).collect::<Vec<_>>(), ["/1", "/2", "/3"]);
}

#[test]
fn an_empty_list_takes_away_what_was_there() {
    let folder = Folder::with(&[("a.toml", "[[route]]\npath = \"/1\"\n"), ("b.toml", "route = []\n")]);
    assert_eq!(loaded(folder.read(&["a.toml", "b.toml"]).unwrap()).route.len(), 0);
}

#[test]
fn includes_lie_over_their_file_in_the_order_of_names() {
    let folder = Folder::with(&[
        (
            "palisade.toml",
            "include = [\"conf.d/*.toml\", \"last.toml\"]\n[waf]\nparanoia = 1\n[[route]]\npath = \"/main\"\n",
        ),
        ("conf.d/20-b.toml", "[[route]]\npath = \"/b\"\n[waf]\nparanoia = 3\n"),
        ("conf.d/10-a.toml", "include = [\"deeper/x.toml\"]\n[[route]]\npath = \"/a\"\n[waf]\nparanoia = 2\n"),
        ("conf.d/deeper/x.toml", "[[route]]\npath = \"/deeper\"\n"),
        ("conf.d/.hidden.toml", "broken"),
        ("conf.d/readme.md", "broken"),
        ("last.toml", "[[route]]\npath = \"/last\"\n"),
    ]);
    let snapshot = folder.read(&["palisade.toml"]).unwrap();
    let files: Vec<_> = snapshot.files().map(|path| path.strip_prefix(folder.0.path()).unwrap().to_owned()).collect();
    let expected = ["palisade.toml", "conf.d/10-a.toml", "conf.d/deeper/x.toml", "conf.d/20-b.toml", "last.toml"];
    assert_eq!(files, expected.map(PathBuf::from));
    // A relative path in an included file starts where the main file is.
    assert_eq!(snapshot.base_dir("route[2].path"), folder.0.path());
    assert_eq!(line(snapshot.origin("waf.paranoia")), ("20-b.toml".into(), 4));
    let config = loaded(snapshot);
    assert_eq!(
        config.route.iter().map(|route| route.path.as_str()).collect::<Vec<_>>(),
        ["/main", "/a", "/deeper", "/b", "/last"]
    );
    assert_eq!(config.waf.paranoia, 3);
}

#[test]
fn bad_includes() {
    let cases: &[(&str, &str, &str)] = &[
        ("no_match", "include = [\"conf.d/*.toml\"]\n", "no file matches this pattern"),
        ("no_folder", "include = [\"nowhere/*.toml\"]\n", "the folder of this pattern does not exist"),
        ("no_file", "include = [\"nowhere.toml\"]\n", "there is no such file"),
        ("a_folder", "include = [\"conf.d\"]\n", "this is a folder"),
        ("itself", "include = [\"main.toml\"]\n", "this file includes itself"),
        ("twice", "include = [\"one.toml\", \"o*.toml\"]\n", "this file is read twice"),
        ("star_in_folder", "include = [\"*/x.toml\"]\n", "stand in the file's name only"),
        ("no_list", "include = \"one.toml\"\n", "takes a list of files"),
        ("no_text", "include = [1, \"\"]\n", "takes names of files"),
        ("a_pipe", "include = [\"pipe\"]\n", "not a regular file"),
        ("a_loop", "include = [\"loop.toml\"]\n", "this file cannot be read"),
    ];
    for (name, text, expected) in cases {
        let folder = Folder::with(&[("main.toml", text), ("one.toml", "")]);
        fs::create_dir(folder.path("conf.d")).unwrap();
        nix::unistd::mkfifo(&folder.path("pipe"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        symlink("loop.toml", folder.path("loop.toml")).unwrap();
        let problems = folder.problems(&["main.toml"]);
        assert!(problems.contains(expected), "{name}: {problems}");
        assert!(problems.contains("main.toml:1:"), "{name}: {problems}");
    }
}

#[test]
fn a_cycle_of_includes_ends() {
    let folder = Folder::with(&[("a.toml", "include = [\"b.toml\"]\n"), ("b.toml", "include = [\"./a.toml\"]\n")]);
    insta::assert_snapshot!("include_cycle", folder.listed(&["a.toml"]));
}

#[test]
fn includes_have_a_depth() {
    let folder = Folder::with(&[]);
    for depth in 0..12 {
        folder.write(&format!("{depth}.toml"), format!("include = [\"{}.toml\"]\n", depth + 1));
    }
    assert!(folder.problems(&["0.toml"]).contains("included too deeply"));
}

#[test]
fn syntax_errors_of_all_files_at_once() {
    let folder = Folder::with(&[
        ("a.toml", "include = [\"c.toml\"]\n[waf]\nmode = blok\n"),
        ("b.toml", "[waf\n"),
        ("c.toml", "x = \"\n"),
    ]);
    // The include of a broken file is not read: its list cannot be trusted.
    insta::assert_snapshot!("syntax_of_several_files", folder.listed(&["a.toml", "b.toml", "c.toml"]));
}

#[test]
fn files_that_are_no_policy() {
    let folder = Folder::with(&[("good.toml", "")]);
    folder.write("latin.toml", b"# a\n# caf\xe9\n");
    folder.write("large.toml", vec![b'#'; 4 * 1024 * 1024 + 1]);
    fs::create_dir(folder.path("folder")).unwrap();
    for (name, expected) in [
        ("latin.toml", "this file is not UTF-8 (line 2)"),
        ("large.toml", "larger than 4 MiB"),
        ("folder", "this is a folder"),
        ("absent.toml", "there is no such file"),
        ("/dev/null", "not a regular file"),
    ] {
        let problems = folder.problems(&["good.toml", name]);
        assert!(problems.contains(expected), "{name}: {problems}");
        assert!(problems.contains(Path::new(name).file_name().unwrap().to_str().unwrap()), "{name}: {problems}");
    }
    folder.write("full.toml", vec![b'#'; 4 * 1024 * 1024]);
    folder.read(&["full.toml"]).unwrap();
    folder.write("bom.toml", "\u{feff}[waf]\r\nparanoia = 2\r\n");
    assert_eq!(loaded(folder.read(&["bom.toml"]).unwrap()).waf.paranoia, 2);
}

#[test]
fn environment_and_flags_override() {
    let folder = Folder::with(&[("palisade.toml", "[server]\nhttps = \"file\"\n[waf]\nparanoia = 1\n")]);
    let sources = Sources::new()
        .builtin("starter policy", "[waf]\nmode = \"detect\"\nparanoia = 4\n")
        .file(folder.path("palisade.toml"))
        .environment([
            ("PALISADE__UPSTREAM__URL", "\"http://env\""),
            ("PALISADE__SERVER__HTTPS", "\"env\""),
            ("PALISADE__CORS", "{ origins = [\"https://env\"], credentials = true }"),
            ("PALISADE_SECRETS_KEY_FILE", "not ours"),
            ("PATH", "/bin"),
        ])
        .flag("--upstream", "upstream.url", "\"http://flag\"");
    let snapshot = Snapshot::read(&sources).unwrap();
    assert_eq!(snapshot.origin("waf.mode"), Origin::Builtin("starter policy"));
    assert!(snapshot.has_builtin("starter policy") && !snapshot.has_builtin("another"));
    assert_eq!(line(snapshot.origin("waf.paranoia")), ("palisade.toml".into(), 4));
    assert_eq!(snapshot.origin("server.https"), Origin::Env("PALISADE__SERVER__HTTPS".into()));
    assert_eq!(snapshot.origin("upstream.url"), Origin::Flag("--upstream".into()));
    assert_eq!(snapshot.env_overrides(), ["PALISADE__CORS", "PALISADE__SERVER__HTTPS", "PALISADE__UPSTREAM__URL"]);
    assert_eq!(snapshot.base_dir("server.https"), Path::new(""));
    let config = loaded(snapshot);
    assert_eq!(config.server.https, "env");
    assert_eq!(config.upstream.url.0, "http://flag");
    assert_eq!(config.waf.mode, Mode::Detect);
    assert!(config.cors.unwrap().credentials);
}

#[test]
fn overrides_that_are_refused() {
    let sources = Sources::new().builtin("starter policy", "[server]\nmode = \"production\"\n").environment([
        ("PALISADE__SERVER__MODE", "\"development\""),
        ("PALISADE__ROUTE", "[{ path = \"/*\", public = true }]"),
        ("PALISADE__ROUTE__0__PUBLIC", "true"),
        ("PALISADE__INCLUDE", "[\"/tmp/x.toml\"]"),
        ("PALISADE__SERVER", "{ mode = \"development\" }"),
        ("PALISADE__SERVER__HTTPS", "0.0.0.0:443"),
        ("PALISADE__SERVER__ADMIN_TOKEN", "hunter2"),
        ("PALISADE__WAF__PARANOIA", ""),
        ("PALISADE__WAF____MODE", "\"off\""),
        ("PALISADE__", "1"),
        ("PALISADE__LIMITS__CONNECTIONS", "99999999999999999999999"),
    ]);
    let problems = Snapshot::read(&sources).expect_err("these overrides are not allowed");
    let rendered = problems.render(false);
    assert!(!rendered.contains("hunter2"), "{rendered}");
    insta::assert_snapshot!("overrides_refused", rendered);
    insta::assert_snapshot!("overrides_refused_json", serde_json::to_string_pretty(&problems.to_json()).unwrap());
}

#[test]
fn mistakes_in_overrides_point_at_the_name() {
    let sources = Sources::new()
        .environment([
            ("PALISADE__SERVR__HTTPS", "\"x\""),
            ("PALISADE__WAF__MOD", "\"off\""),
            ("PALISADE__WAF__PARANOIA", "9"),
        ])
        .flag("--upstream", "upstream.url", "\"gopher:x\"");
    let (_, problems) = sample::check(Snapshot::read(&sources).unwrap());
    insta::assert_snapshot!("overrides_mistaken", problems.render(false));
}

#[test]
fn the_hash_is_of_what_is_said() {
    let folder = Folder::with(&[("a.toml", "[waf]\n"), ("other/b.toml", "[waf]\n"), ("c.toml", "[waf]\n\n")]);
    let hash = |name| folder.read(&[name]).unwrap().hash();
    assert_eq!(hash("a.toml"), hash("other/b.toml"));
    assert_ne!(hash("a.toml"), hash("c.toml"));
    let env = |value: &str| {
        let sources = Sources::new().file(folder.path("a.toml")).environment([("PALISADE__WAF__PARANOIA", value)]);
        Snapshot::read(&sources).unwrap().hash()
    };
    assert_ne!(env("1"), env("2"));
    assert_ne!(env("1"), hash("a.toml"));
    assert_eq!(Snapshot::from_text("x", "a=1").unwrap().hash(), Snapshot::from_text("y", "a=1").unwrap().hash());
}

#[test]
fn a_snapshot_is_not_changed_by_what_happens_to_its_files() {
    let folder = Folder::with(&[("a.toml", "[waf]\nparanoia = 2\nmode = \"blok\"\n")]);
    let snapshot = folder.read(&["a.toml"]).unwrap();
    folder.write("a.toml", "[waf]\nparanoia = 3\n");
    let (_, problems) = sample::check(snapshot);
    assert!(problems.render(false).contains("mode = \"blok\""));
}

#[test]
fn files_that_others_can_change_are_reported() {
    let folder = Folder::with(&[("palisade.toml", "include = [\"conf.d/*.toml\"]\n"), ("conf.d/a.toml", "")]);
    let mode = |name: &str, mode| fs::set_permissions(folder.path(name), fs::Permissions::from_mode(mode)).unwrap();
    let uid = nix::unistd::geteuid().as_raw();
    let check = |uid: u32| {
        let snapshot = folder.read(&["palisade.toml"]).unwrap();
        let mut problems = snapshot.problems();
        snapshot.check_ownership(uid, &mut problems);
        folder.plain(&problems).replace(&folder.0.path().display().to_string(), "HERE")
    };
    mode("palisade.toml", 0o644);
    mode("conf.d/a.toml", 0o600);
    mode("conf.d", 0o755);
    assert_eq!(check(uid), "");
    for (name, bits, expected) in [
        ("conf.d/a.toml", 0o664, "others may write this file (mode 0664)"),
        ("conf.d/a.toml", 0o602, "others may write this file (mode 0602)"),
        ("conf.d", 0o775, "others may replace this file"),
        ("conf.d", 0o777, "others may replace this file"),
    ] {
        let before = fs::metadata(folder.path(name)).unwrap().permissions();
        mode(name, bits);
        let problems = check(uid);
        assert!(problems.contains(expected) && problems.contains("conf.d/a.toml"), "{name} {bits:o}: {problems}");
        fs::set_permissions(folder.path(name), before).unwrap();
    }
    // A sticky folder lets nobody swap the files of others.
    mode("conf.d", 0o1777);
    assert_eq!(check(uid), "");
    mode("conf.d", 0o755);
    if uid == 0 {
        nix::unistd::chown(&folder.path("conf.d/a.toml"), Some(nix::unistd::Uid::from_raw(12345)), None).unwrap();
        assert!(check(0).contains("belongs to user 12345"));
        assert!(check(54321).contains("belongs to user 12345"));
        assert_eq!(check(12345), "");
    }
}

#[test]
fn a_swapped_link_is_followed() {
    let folder =
        Folder::with(&[("v1/palisade.toml", "[waf]\nparanoia = 1\n"), ("v2/palisade.toml", "[waf]\nparanoia = 2\n")]);
    symlink("v1", folder.path("data")).unwrap();
    symlink("data/palisade.toml", folder.path("palisade.toml")).unwrap();
    assert_eq!(loaded(folder.read(&["palisade.toml"]).unwrap()).waf.paranoia, 1);
    fs::remove_file(folder.path("data")).unwrap();
    symlink("v2", folder.path("data")).unwrap();
    assert_eq!(loaded(folder.read(&["palisade.toml"]).unwrap()).waf.paranoia, 2);
}

#[test]
fn nothing_at_all_is_a_policy() {
    let snapshot = Snapshot::read(&Sources::new()).unwrap();
    assert!(snapshot.is_empty());
    let config = loaded(snapshot);
    assert_eq!(config.limits.body.0, "1MiB");
}
