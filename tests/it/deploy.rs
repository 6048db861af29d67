//! As it is deployed: no rights, a root that cannot be written to.

use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result};
use palisade_test::upstream::Reply;
use palisade_test::{Palisade, Upstream, not_run};

use crate::support::lacks_root;

/// Runs the binary as `nobody` below a read-only view of `/`, in which only its working directory can be written to.
const WRAPPER: &str = r#"#!/bin/sh
set -eu
here=$(pwd)
mkdir -p "$here/root"
chown -R 65534:65534 "$here"
exec unshare --mount sh -c '
    set -eu
    here=$0
    mount --bind / "$here/root"
    mount -o remount,bind,ro "$here/root"
    mount --bind "$here" "$here/root$here"
    exec chroot --userspec=65534:65534 "$here/root" sh -c "cd \"\$0\" && exec \"\$@\"" "$here" "$@"
' "$here" "@BINARY@" "$@"
"#;

#[tokio::test]
async fn serves_without_rights_and_with_a_read_only_root() -> Result<()> {
    if lacks_root("mount") {
        return Ok(());
    }
    let upstream = Upstream::answering(|_| Reply::text("from behind")).await?;
    // `exec` keeps the wrapper's process, so what the kit watches is the gateway itself.
    let folder = tempfile::tempdir()?;
    let wrapper = folder.path().join("palisade");
    let binary = palisade_test::paths::binary()?;
    std::fs::write(&wrapper, WRAPPER.replace("@BINARY@", &binary.to_string_lossy()))?;
    std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755))?;

    let gateway = Palisade::serve().binary(&wrapper).upstream(&upstream.url()).start().await?;
    let mut answer = gateway.https()?.get("/").send().await?;
    assert_eq!((answer.status(), answer.text().await?.as_str()), (200, "from behind"));
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.process().id()))?;
    assert!(status.lines().any(|line| line.starts_with("Uid:") && line.contains("65534")), "{status}");
    assert!(gateway.terminate().await?.success());
    Ok(())
}

/// What stands in `deploy/`.
fn deployed(name: &str) -> Result<String> {
    let path = palisade_test::paths::workspace().join("deploy").join(name);
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

#[test]
fn the_unit_is_one() -> Result<()> {
    if !palisade_test::shell::has("systemd-analyze") {
        not_run("there is no `systemd-analyze` here");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let unit = folder.path().join("palisade.service");
    let verify = |text: &str| {
        std::fs::write(&unit, text)?;
        let verify = std::process::Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit).output()?;
        anyhow::Ok((verify.status.success(), String::from_utf8_lossy(&verify.stderr).into_owned()))
    };
    // It looks for the programs too.
    let binary = palisade_test::paths::binary()?;
    let text = deployed("palisade.service")?.replace("/usr/bin/palisade", &binary.to_string_lossy());
    let (good, said) = verify(&text)?;
    assert!(good && said.is_empty(), "{said}");
    let (_, said) = verify(&text.replace("NoNewPrivileges=yes", "NoNewPrivilages=yes"))?;
    assert!(said.contains("NoNewPrivilages"), "it judges nothing: {said}");
    Ok(())
}

/// By its own rules, as far as a build can be judged without building: instructions, stages, no rights at the end.
#[test]
fn the_image_has_no_rights() -> Result<()> {
    const KNOWN: [&str; 10] =
        ["FROM", "WORKDIR", "COPY", "RUN", "ENV", "VOLUME", "EXPOSE", "USER", "ENTRYPOINT", "CMD"];
    let text = deployed("Dockerfile")?.replace("\\\n", " ");
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut stages = Vec::new();
    let mut last: Vec<(&str, &str)> = Vec::new();
    for line in lines {
        let (instruction, rest) = line.split_once(' ').with_context(|| line.to_owned())?;
        assert!(KNOWN.contains(&instruction), "{line}");
        if instruction == "FROM" {
            stages.extend(rest.split_once(" AS ").map(|(_, name)| name.to_owned()));
            last.clear();
        }
        if let Some(from) = rest.strip_prefix("--from=") {
            let stage = from.split(' ').next().unwrap_or_default();
            assert!(stages.iter().any(|known| known == stage), "{line}");
        }
        if matches!(instruction, "ENTRYPOINT" | "CMD") {
            serde_json::from_str::<Vec<String>>(rest).with_context(|| format!("not a list: {line}"))?;
        }
        last.push((instruction, rest));
    }
    let all = |name: &str| last.iter().filter(|(known, _)| *known == name).map(|(_, rest)| *rest).collect::<Vec<_>>();
    assert_eq!((all("USER"), all("RUN").len()), (vec!["nonroot"], 0));
    assert_eq!((all("ENTRYPOINT"), all("CMD")), (vec!["[\"/usr/bin/palisade\"]"], vec!["[\"serve\"]"]));
    // The ports that it opens are those that its environment names, and no port needs a right.
    let environment = all("ENV").join(" ");
    for port in all("EXPOSE").join(" ").split(' ') {
        assert!(environment.contains(&format!(":{port}\"")) && port.parse::<u16>()? >= 1024, "{port}: {environment}");
    }
    let state = all("VOLUME").join("");
    assert!(environment.contains(&format!("STATE_DIRECTORY={state}")), "{environment}");
    // A volume that no directory of the image stands behind is root's, and nothing could be written there.
    let owned = all("COPY").into_iter().find(|copy| copy.ends_with(&format!(" {state}")));
    assert!(owned.is_some_and(|copy| copy.contains("--chown=nonroot:nonroot")), "{owned:?}");
    Ok(())
}

/// The compose file is read by a YAML parser, and its environment by the binary.
#[test]
fn the_compose_file_is_in_order() -> Result<()> {
    palisade_test::need(palisade_test::Need::Python)?;
    let python = palisade_test::provision::python_program("python");
    let parse = "import json, sys, yaml; print(json.dumps(yaml.safe_load(sys.stdin)))";
    let mut child = std::process::Command::new(python)
        .args(["-c", parse])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    std::io::Write::write_all(&mut child.stdin.take().context("stdin")?, deployed("compose.yaml")?.as_bytes())?;
    let compose: serde_json::Value = serde_json::from_slice(&child.wait_with_output()?.stdout)?;
    let services = compose["services"].as_object().context("services")?;
    for (name, service) in services {
        assert_eq!(
            (&service["read_only"], &service["cap_drop"]),
            (&true.into(), &serde_json::json!(["ALL"])),
            "{name}"
        );
        for network in service["networks"].as_array().context("networks")? {
            let network = network.as_str().unwrap_or_default();
            assert!(compose["networks"].as_object().is_some_and(|all| all.contains_key(network)), "{name}: {network}");
        }
    }
    assert_eq!(compose["networks"]["inside"]["internal"], true, "nobody reaches the application past the gateway");
    assert!(services["app"].get("ports").is_none());
    let environment = services["palisade"]["environment"].as_object().context("environment")?;
    assert!(!environment.is_empty());
    for (name, value) in environment {
        let value = value.as_str().context("text")?;
        let mut check = std::process::Command::new(palisade_test::paths::binary()?);
        check.args(["check", "--effective"]).env(name, value).current_dir(std::env::temp_dir());
        let check = check.output()?;
        let said = String::from_utf8_lossy(&check.stdout);
        assert!(check.status.success() && said.contains(value.trim_matches('"')), "{name}: {said}");
    }
    Ok(())
}
