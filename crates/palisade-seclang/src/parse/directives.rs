//! Directives other than rules.

use std::path::Path;
use std::sync::Arc;

use super::{Builder, PendingChain, actions, targets};
use crate::problem::{Place, did_you_mean};
use crate::regex::Regex;
use crate::rule::{AuditMode, Disruption, EngineMode, Which};
use crate::settings::LimitAction;
use crate::transform::UnicodeMap;

/// Directives that have a meaning for a server module and none for an engine inside a gateway, and why.
const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("SecAuditLog", "the gateway writes its own log"),
    ("SecAuditLog2", "the gateway writes its own log"),
    ("SecAuditLogDirMode", "the gateway writes its own log"),
    ("SecAuditLogFileMode", "the gateway writes its own log"),
    ("SecAuditLogFormat", "the gateway writes its own log"),
    ("SecAuditLogStorageDir", "the gateway writes its own log"),
    ("SecAuditLogType", "the gateway writes its own log"),
    ("SecDebugLog", "matches are explained by the transaction itself"),
    ("SecDebugLogLevel", "matches are explained by the transaction itself"),
    ("SecDataDir", "collections live in the gateway's state"),
    ("SecTmpDir", "nothing is written to disk"),
    ("SecTmpSaveUploadedFiles", "nothing is written to disk"),
    ("SecUploadDir", "nothing is written to disk"),
    ("SecUploadFileLimit", "uploads are inspected by the gateway"),
    ("SecUploadFileMode", "nothing is written to disk"),
    ("SecUploadKeepFiles", "nothing is written to disk"),
    ("SecRequestBodyInMemoryLimit", "nothing is written to disk"),
    ("SecPcreMatchLimit", "patterns run in linear time"),
    ("SecPcreMatchLimitRecursion", "patterns run in linear time"),
    ("SecRxPreFilter", "prefilters are always on"),
    ("SecStatusEngine", "the engine never calls home"),
    ("SecServerSignature", "headers belong to the gateway"),
    ("SecCookieFormat", "cookies are read as browsers send them"),
    ("SecStreamInBodyInspection", "bodies are read as a stream"),
    ("SecStreamOutBodyInspection", "bodies are read as a stream"),
    ("SecConnEngine", "connections belong to the gateway"),
    ("SecInterceptOnError", "an error in a rule refuses"),
    ("SecCacheTransformations", "the engine decides what it caches"),
    ("SecRuleInheritance", "rules are chosen by the gateway's routes"),
    ("SecGeoLookupDb", "no country database is read here"),
    ("SecGeoLookupDB", "no country database is read here"),
    ("SecHttpBlKey", "block lists belong to the gateway"),
    ("SecSensorId", "the gateway has a name of its own"),
    ("SecXmlExternalEntity", "external entities are always refused"),
];

/// Directives that change what is inspected and that this engine does not have.
const REFUSED: &[(&str, &str)] = &[
    ("SecRuleScript", "write the check as a rule"),
    ("SecHashEngine", "remove it"),
    ("SecRemoteRules", "download the rules and include the files"),
    ("SecContentInjection", "remove it"),
    ("SecRuleUpdateActionByTag", "update the rules by number"),
    ("SecChrootDir", "remove it"),
    ("SecDisableBackendCompression", "remove it"),
    ("SecUnicodeCodePage", "use `SecUnicodeMapFile`"),
];

const KNOWN: &[&str] = &[
    "Include",
    "IncludeOptional",
    "SecRule",
    "SecAction",
    "SecMarker",
    "SecDefaultAction",
    "SecRuleEngine",
    "SecRequestBodyAccess",
    "SecRequestBodyLimit",
    "SecRequestBodyNoFilesLimit",
    "SecRequestBodyLimitAction",
    "SecRequestBodyJsonDepthLimit",
    "SecArgumentsLimit",
    "SecResponseBodyAccess",
    "SecResponseBodyMimeType",
    "SecResponseBodyMimeTypesClear",
    "SecResponseBodyLimit",
    "SecResponseBodyLimitAction",
    "SecArgumentSeparator",
    "SecCollectionTimeout",
    "SecAuditEngine",
    "SecAuditLogParts",
    "SecAuditLogRelevantStatus",
    "SecComponentSignature",
    "SecWebAppId",
    "SecRuleRemoveById",
    "SecRuleRemoveByTag",
    "SecRuleRemoveByMsg",
    "SecRuleUpdateTargetById",
    "SecRuleUpdateTargetByTag",
    "SecRuleUpdateTargetByMsg",
    "SecRuleUpdateActionById",
    "SecUnicodeMapFile",
    "SecUnicodeMap",
];

impl Builder {
    pub(super) fn directive(&mut self, at: &Place, text: &str, words: &[String], path: Option<&Path>, depth: usize) {
        let Some(name) = words.first() else { return };
        let lower = name.to_ascii_lowercase();
        // `<IfModule …>` and the like belong to Apache.
        if name.starts_with('<') {
            self.problems.error(
                at,
                text,
                "sections of a web server are not read here",
                "keep the directives inside and remove the section's lines",
            );
            return;
        }
        let rule = matches!(lower.as_str(), "secrule" | "secaction");
        if !rule && self.chain.take().is_some_and(|c| matches!(c, PendingChain::Good)) {
            self.problems.error(
                at,
                text,
                "the rule before says `chain`, but this is not a rule",
                "remove `chain`, or move this line",
            );
        }
        let argument = |n: usize| words.get(n).map(String::as_str);
        let result: Result<(), (String, String)> = match lower.as_str() {
            "secrule" | "secaction" => {
                self.rule(at, text, words, path);
                Ok(())
            }
            "include" | "includeoptional" => match argument(1) {
                Some(file) => {
                    let file = Path::new(file);
                    let file = match path.and_then(Path::parent) {
                        Some(folder) if file.is_relative() => folder.join(file),
                        _ => file.to_owned(),
                    };
                    self.include(&file, at, depth + 1, lower == "includeoptional");
                    Ok(())
                }
                None => Err((format!("`{name}` needs a file"), "write its path".into())),
            },
            _ => self.setting(at, &lower, name, words, path),
        };
        if let Err((message, help)) = result {
            self.problems.error(at, text, message, help);
        }
    }

    fn setting(
        &mut self,
        at: &Place,
        lower: &str,
        name: &str,
        words: &[String],
        path: Option<&Path>,
    ) -> Result<(), (String, String)> {
        let need = |n: usize| -> Result<&str, (String, String)> {
            words.get(n).map(String::as_str).ok_or_else(|| (format!("`{name}` needs a value"), "add it".to_owned()))
        };
        let number = |n: usize| -> Result<usize, (String, String)> {
            let text = need(n)?;
            text.parse().map_err(|_| (format!("`{text}` is not a number"), "write it in digits".to_owned()))
        };
        let on_off = |n: usize| -> Result<bool, (String, String)> {
            match need(n)?.to_ascii_lowercase().as_str() {
                "on" => Ok(true),
                "off" => Ok(false),
                other => Err((format!("`{other}` is neither `On` nor `Off`"), String::new())),
            }
        };
        let limit_action = |n: usize| -> Result<LimitAction, (String, String)> {
            match need(n)?.to_ascii_lowercase().as_str() {
                "reject" => Ok(LimitAction::Reject),
                "processpartial" => Ok(LimitAction::ProcessPartial),
                other => Err((format!("`{other}` is neither `Reject` nor `ProcessPartial`"), String::new())),
            }
        };
        match lower {
            "secmarker" => {
                let label = need(1)?.to_owned();
                self.markers.push((label, self.rules.len() as u32));
            }
            "secdefaultaction" => self.default_action(need(1)?)?,
            "secruleengine" => self.settings.engine = engine_mode(need(1)?)?,
            "secrequestbodyaccess" => self.settings.request_body = on_off(1)?,
            "secrequestbodylimit" => self.settings.request_body_limit = number(1)?,
            "secrequestbodynofileslimit" => self.settings.request_body_no_files_limit = number(1)?,
            "secrequestbodylimitaction" => self.settings.request_body_limit_action = limit_action(1)?,
            "secrequestbodyjsondepthlimit" => self.settings.json_depth = number(1)?,
            "secargumentslimit" => self.settings.arguments = number(1)?,
            "secresponsebodyaccess" => self.settings.response_body = on_off(1)?,
            "secresponsebodymimetype" => {
                self.settings.response_types = words[1..].iter().map(|w| w.to_ascii_lowercase()).collect();
            }
            "secresponsebodymimetypesclear" => self.settings.response_types.clear(),
            "secresponsebodylimit" => self.settings.response_body_limit = number(1)?,
            "secresponsebodylimitaction" => self.settings.response_body_limit_action = limit_action(1)?,
            "secargumentseparator" => match need(1)?.as_bytes() {
                [one] => self.settings.argument_separator = *one,
                _ => return Err(("the separator is one character".into(), "write `&` or `;`".into())),
            },
            "seccollectiontimeout" => self.settings.collection_timeout = number(1)? as u64,
            "secauditengine" => self.settings.audit = audit_mode(need(1)?)?,
            "secauditlogparts" => self.settings.audit_parts = need(1)?.to_owned(),
            "secauditlogrelevantstatus" => self.settings.audit_status = Some(need(1)?.to_owned()),
            "seccomponentsignature" => self.settings.components.push(need(1)?.to_owned()),
            "secwebappid" => self.settings.web_app = need(1)?.to_owned(),
            "secruleremovebyid" => {
                for word in &words[1..] {
                    let ranges = id_ranges(word)?;
                    self.removals.push(Which::Ids(ranges));
                }
            }
            "secruleremovebytag" => self.removals.push(Which::Tag(which_pattern(need(1)?)?)),
            "secruleremovebymsg" => self.removals.push(Which::Message(which_pattern(need(1)?)?)),
            "secruleupdatetargetbyid" | "secruleupdatetargetbytag" | "secruleupdatetargetbymsg" => {
                let which = match lower {
                    "secruleupdatetargetbyid" => Which::Ids(id_ranges(need(1)?)?),
                    "secruleupdatetargetbytag" => Which::Tag(which_pattern(need(1)?)?),
                    _ => Which::Message(which_pattern(need(1)?)?),
                };
                if words.len() > 3 {
                    return Err((
                        "replacing a variable is not supported".into(),
                        "exclude it with `!` and add the other".into(),
                    ));
                }
                let (wanted, excluded) = targets::targets(need(2)?, &mut self.names)?;
                self.target_updates.push((at.clone(), which, wanted, excluded));
            }
            "secruleupdateactionbyid" => {
                let id =
                    need(1)?.parse().map_err(|_| (format!("`{}` is not a rule's number", words[1]), String::new()))?;
                self.action_updates.push((at.clone(), id, need(2)?.to_owned()));
            }
            "secunicodemapfile" | "secunicodemap" if self.texts_only => {
                return Err((super::NO_FILES.0.into(), super::NO_FILES.1.into()));
            }
            "secunicodemapfile" | "secunicodemap" => {
                let page: u32 = number(2)? as u32;
                let file = match path.and_then(Path::parent) {
                    Some(folder) => folder.join(need(1)?),
                    None => need(1)?.into(),
                };
                self.files.push(file.clone());
                let text = std::fs::read(&file).map_err(|e| {
                    (
                        format!("cannot read `{}`: {e}", file.display()),
                        "maps are looked for beside the rule file".to_owned(),
                    )
                })?;
                let map = UnicodeMap::parse(&String::from_utf8_lossy(&text), page)
                    .ok_or_else(|| (format!("`{}` has no code page {page}", file.display()), String::new()))?;
                self.unicode_map = Some(Arc::new(map));
            }
            _ => {
                if let Some((known, why)) = WITHOUT_EFFECT.iter().find(|(n, _)| n.eq_ignore_ascii_case(lower)) {
                    let note = format!("{at}: `{known}` has no effect: {why}");
                    self.settings.notes.push(note);
                    return Ok(());
                }
                if let Some((_, help)) = REFUSED.iter().find(|(n, _)| lower.starts_with(&n.to_ascii_lowercase())) {
                    return Err((format!("the directive `{name}` is not supported"), (*help).to_owned()));
                }
                let known = KNOWN.iter().copied().chain(WITHOUT_EFFECT.iter().map(|(n, _)| *n));
                return Err((format!("unknown directive `{name}`"), did_you_mean(name, known)));
            }
        }
        Ok(())
    }

    fn default_action(&mut self, text: &str) -> Result<(), (String, String)> {
        let list = actions::actions(text).map_err(|e| (e, String::new()))?;
        let phase = list
            .iter()
            .find(|a| a.name == "phase")
            .and_then(|a| a.value.as_deref())
            .and_then(super::build::phase)
            .ok_or_else(|| {
                (
                    "`SecDefaultAction` needs a `phase`".to_owned(),
                    "write, for example, `phase:2,log,auditlog,pass`".to_owned(),
                )
            })?;
        let mut default = self.defaults[usize::from(phase) - 1].clone();
        default.transforms.clear();
        default.tags.clear();
        (default.severity, default.data) = (None, None);
        for action in &list {
            let value = action.value.as_deref().unwrap_or("");
            match action.name.as_str() {
                "phase" => {}
                "log" => (default.log, default.audit) = (true, true),
                "nolog" => (default.log, default.audit) = (false, false),
                "auditlog" => default.audit = true,
                "noauditlog" => default.audit = false,
                "status" => default.status = super::build::status(value)?.into(),
                "t" => super::build::transform(value, &mut default.transforms)?,
                "tag" => default.tags.push(super::build::macro_of(value, &mut self.names)?),
                "severity" => default.severity = Some(super::build::severity(value)?),
                "logdata" => default.data = Some(super::build::macro_of(value, &mut self.names)?),
                name => match super::build::disruption(name, value, &mut self.names)? {
                    Some(Disruption::Default) => {
                        return Err((
                            "`block` cannot be the default of itself".into(),
                            "write `deny` or `pass`".into(),
                        ));
                    }
                    Some(disruption) => default.disruption = disruption,
                    None => return Err((
                        format!("`{name}` cannot be in `SecDefaultAction`"),
                        "only logging, transformations, tags, severity, `logdata`, status and one of `pass`, `deny`, \
                         `drop`, `allow`, `redirect`"
                            .into(),
                    )),
                },
            }
        }
        self.defaults[usize::from(phase) - 1] = default;
        Ok(())
    }
}

pub(super) fn engine_mode(text: &str) -> Result<EngineMode, (String, String)> {
    match text.to_ascii_lowercase().as_str() {
        "on" => Ok(EngineMode::On),
        "off" => Ok(EngineMode::Off),
        "detectiononly" => Ok(EngineMode::DetectionOnly),
        _ => Err((format!("`{text}` is none of `On`, `Off`, `DetectionOnly`"), String::new())),
    }
}

pub(super) fn audit_mode(text: &str) -> Result<AuditMode, (String, String)> {
    match text.to_ascii_lowercase().as_str() {
        "on" => Ok(AuditMode::On),
        "off" => Ok(AuditMode::Off),
        "relevantonly" => Ok(AuditMode::RelevantOnly),
        _ => Err((format!("`{text}` is none of `On`, `Off`, `RelevantOnly`"), String::new())),
    }
}

/// `1,3-5 "7"`.
pub(super) fn id_ranges(text: &str) -> Result<Vec<(u64, u64)>, (String, String)> {
    text.split([',', ' '])
        .map(|p| p.trim().trim_matches('"'))
        .filter(|p| !p.is_empty())
        .map(|p| {
            let (low, high) = p.split_once('-').unwrap_or((p, p));
            match (low.trim().parse(), high.trim().parse()) {
                (Ok(low), Ok(high)) => Ok((low, high)),
                _ => Err((
                    format!("`{p}` is not a rule's number or range"),
                    "write, for example, `942100` or `942000-942999`".to_owned(),
                )),
            }
        })
        .collect()
}

pub(super) fn which_pattern(text: &str) -> Result<Regex, (String, String)> {
    Regex::new(text, false, false).map_err(|e| (format!("the pattern `{text}` cannot be compiled: {e}"), String::new()))
}
