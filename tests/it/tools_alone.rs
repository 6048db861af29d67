//! The tools that judge, shown to judge.

use anyhow::Result;
use palisade_test::metrics;

#[test]
fn promtool_accepts_and_complains() -> Result<()> {
    metrics::check("# HELP a_total What.\n# TYPE a_total counter\na_total{code=\"x\"} 1\n")?;
    for wrong in ["a_total{code=x} 1\n", "# HELP a What.\n# TYPE a counter\na 1\n"] {
        assert!(metrics::check(wrong).is_err(), "{wrong}");
    }
    Ok(())
}
