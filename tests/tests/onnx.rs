//! Do flows get what models' own libraries say of them?
//!
//! Models are trained by the libraries that people use, on flows of a capture made for that, and
//! exported as they do it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use flowmeter_tests::meter::Meter;
use flowmeter_tests::netns::{Link, WIRE};
use flowmeter_tests::{nfstream, program, root};
use serde_json::Value;

/// What tests/python/models.py trains on, in its order.
const FEATURES: &str = "bidirectional_packets,bidirectional_duration_ms,src2dst_bytes,dst2src_bytes,\
                        bidirectional_mean_ps,bidirectional_stddev_piat_ms,src2dst_max_ps,splt_ps";
const METERED: [&str; 3] = ["--statistical-analysis", "--splt-analysis=4", "--n-dissections=0"];
/// Models, each with the features that it has to be told.
const MODELS: [(&str, Option<&str>); 8] = [
    ("forest", Some(FEATURES)),
    ("plain", Some(FEATURES)),
    ("logistic", Some(FEATURES)),
    ("boosted", Some(FEATURES)),
    ("network", Some(FEATURES)),
    ("xgboost", Some(FEATURES)),
    ("regression", Some("bidirectional_packets,bidirectional_duration_ms")),
    ("mixed", None),
];

/// A folder with trained models; gone with its test.
struct Models {
    folder: PathBuf,
    python: PathBuf,
    library: PathBuf,
}

impl Models {
    /// None if there is nothing to train them with.
    fn train(test: &str) -> Result<Option<Self>> {
        let Some(python) = nfstream::python(test)? else { return Ok(None) };
        let folder = std::env::temp_dir().join(format!("flowmeter-{test}-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let models = Self { library: library(&python)?, folder, python };
        models.python("train", &[&program("flowmeter")?, &models.folder])?;
        Ok(Some(models))
    }

    fn python(&self, what: &str, arguments: &[&Path]) -> Result<String> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/models.py");
        let mut command = Command::new(&self.python);
        let output = command.arg(script).arg(what).args(arguments).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Options that have a model run.
    fn options(&self, name: &str, features: Option<&str>) -> Vec<String> {
        let mut options = vec![
            format!("--model={}", self.folder.join(format!("{name}.onnx")).display()),
            format!("--onnxruntime={}", self.library.display()),
        ];
        options.extend(features.map(|names| format!("--model-features={names}")));
        options
    }

    /// Meters their capture into a file.
    fn read(&self, options: &[String], rows: &Path) -> Result<Output> {
        let mut command = Command::new(program("flowmeter")?);
        command.arg("read").arg(self.folder.join("flows.pcap")).args(METERED).args(options);
        Ok(command.arg("--output").arg(rows).output()?)
    }

    fn check(&self, name: &str, rows: &Path) -> Result<()> {
        let said = self.python("check", &[&self.folder, Path::new(name), rows])?;
        print!("{said}");
        ensure!(said.starts_with(&format!("{name}: ")), "it was not compared: {said}");
        Ok(())
    }
}

impl Drop for Models {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The one that the package of Python carries.
fn library(python: &Path) -> Result<PathBuf> {
    // It is not imported, as it would report to its maker.
    let ask = "import importlib.util as u, pathlib as p; \
               print(p.Path(u.find_spec('onnxruntime').origin).parent / 'capi')";
    let output = Command::new(python).args(["-c", ask]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let folder = String::from_utf8(output.stdout)?;
    let mut files = fs::read_dir(folder.trim())?.filter_map(|entry| Some(entry.ok()?.path()));
    let is_it = |file: &PathBuf| file.to_string_lossy().contains("/libonnxruntime.so.");
    files.find(is_it).context("the package carries a library")
}

#[test]
fn captures_flows_get_what_the_libraries_say() -> Result<()> {
    let Some(models) = Models::train("captures_flows_get_what_the_libraries_say")? else {
        return Ok(());
    };
    for (name, features) in MODELS {
        let options = models.options(name, features);
        let rows = models.folder.join(format!("{name}.jsonl"));
        let output = models.read(&options, &rows)?;
        ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        models.check(name, &rows)?;
        // Any number of workers gives the same.
        let others = models.folder.join(format!("{name}-others.jsonl"));
        models.read(&[options, vec!["--n-meters=2".into()]].concat(), &others)?;
        ensure!(fs::read(&rows)? == fs::read(&others)?, "{name}: another number of workers");
    }
    // Several at once, each with features of its own, stand one behind the other.
    let forest = models.options("forest", Some(FEATURES));
    let mut both = models.options("regression", MODELS[6].1);
    both.extend(forest.into_iter().filter(|option| !option.starts_with("--onnxruntime")));
    let rows = models.folder.join("both.jsonl");
    let output = models.read(&both, &rows)?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows = fs::read_to_string(rows)?;
    let row: Value = serde_json::from_str(rows.lines().next().context("a row")?)?;
    let names: Vec<_> = row.as_object().context("an object")?.keys().collect();
    ensure!(
        names.ends_with(&[
            &"udps.regression_value".to_owned(),
            &"udps.forest_label".to_owned(),
            &"udps.forest_score_beacon".to_owned(),
            &"udps.forest_score_bulk".to_owned(),
            &"udps.forest_score_chat".to_owned(),
        ]),
        "{names:?}"
    );
    the_documents_example_works(&models)?;
    what_it_refuses_is_counted(&models)?;
    what_is_wrong_is_said(&models)
}

/// Trains as docs/models.md does, and runs what comes of it.
fn the_documents_example_works(models: &Models) -> Result<()> {
    let folder = models.folder.join("example");
    fs::create_dir(&folder)?;
    fs::copy(models.folder.join("flows.pcap"), folder.join("flows.pcap"))?;
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/models.md"))?;
    let (_, text) = text.split_once("```python\n").context("an example")?;
    let (example, _) = text.split_once("```").context("the example's end")?;
    let flowmeter = program("flowmeter")?;
    let bin = flowmeter.parent().context("a folder")?;
    let path = format!("{}:{}", bin.display(), std::env::var("PATH")?);
    let mut python = Command::new(&models.python);
    python.args(["-c", example]).current_dir(&folder).env("PATH", path);
    let output = python.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut command = Command::new(flowmeter);
    command.args(["read", "flows.pcap", "--statistical-analysis", "--n-dissections=0"]);
    command.arg("--model=forest.onnx").arg(models.options("forest", None).remove(1));
    let output = command.current_dir(&folder).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows = String::from_utf8(output.stdout)?;
    let rows: Vec<Value> = rows.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let is_right = |row: &&Value| {
        let kinds = ["chat", "bulk", "beacon"];
        let kind = row["src_port"].as_u64().and_then(|port| kinds.get(port as usize / 1000 - 20));
        kind.is_some_and(|kind| row["udps.forest_label"] == *kind)
    };
    let right = rows.iter().filter(is_right).count();
    ensure!(rows.len() == 600 && right > 590, "{right} of {} are right", rows.len());
    Ok(())
}

/// A model that has not learned an address refuses the flows to it, and those alone, whichever come
/// with them.
fn what_it_refuses_is_counted(models: &Models) -> Result<()> {
    let rows = models.folder.join("strict.jsonl");
    let output = models.read(&models.options("strict", None), &rows)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.contains("cannot be run on some flows"), "{said}");
    let report: Value = serde_json::from_str(said.lines().last().context("a report")?)?;
    let rows = fs::read_to_string(rows)?;
    let rows: Vec<Value> = rows.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    for row in &rows {
        let is_unknown = row["dst_ip"] == "10.0.1.3";
        ensure!(row["udps.strict_label"].is_null() == is_unknown, "{row:#}");
    }
    ensure!(report["model_failures"] == 200, "{report:#}");
    ensure!(report["balance_error"] == 0 && rows.len() == 600, "{report:#}");
    Ok(())
}

/// No file and no option ends the program but by an error.
fn what_is_wrong_is_said(models: &Models) -> Result<()> {
    let rows = models.folder.join("wrong.jsonl");
    let wrong = |options: &[String], wanted: &str| -> Result<()> {
        let output = models.read(options, &rows)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(2) && said.contains(wanted), "{options:?}: {said}");
        ensure!(!rows.exists(), "{options:?}: it has begun");
        Ok(())
    };
    let forest = |features| models.options("forest", features);
    wrong(&forest(None), "is not named after a column; say by --model-features")?;
    wrong(&forest(Some("bidirectional_packets")), "takes 11 values, not 1")?;
    wrong(&forest(Some("no_such")), "no column is named `no_such`")?;
    wrong(&forest(Some("src_ip")), "`src_ip` is a text, but its input `features` takes numbers")?;
    wrong(&forest(Some("application_name")), "is not written in this run")?;
    let features = format!("{FEATURES},protocol");
    wrong(&forest(Some(&features)), "1 columns are left over")?;
    wrong(&models.options("mixed", Some("bidirectional_bytes,protocol,dst_ip")), "takes texts")?;
    wrong(&models.options("missing", None), "cannot read the model")?;
    let mut two = forest(Some(FEATURES));
    two.push(format!("--model={}", models.folder.join("mixed.onnx").display()));
    wrong(&two, "--model-features is given 1 times, --model 2 times")?;
    wrong(
        &[forest(None)[0].clone(), "--onnxruntime=/nonexistent/library.so".into()],
        "cannot load onnxruntime",
    )?;
    let whole = fs::read(models.folder.join("forest.onnx"))?;
    let damaged = models.folder.join("damaged.onnx");
    let options = models.options("damaged", Some(FEATURES));
    for length in [0, 1, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&damaged, &whole[..length])?;
        wrong(&options, "cannot use the model")?;
    }
    for place in (0..whole.len().min(4_000)).step_by(97) {
        let mut bytes = whole.clone();
        bytes[place] ^= 0x55;
        fs::write(&damaged, bytes)?;
        let output = models.read(&options, &models.folder.join("damaged.jsonl"))?;
        // It may still be a model.
        let code = output.status.code();
        ensure!(code == Some(2) || code == Some(0), "byte {place}: {output:?}");
    }
    Ok(())
}

#[test]
fn live_flows_get_what_the_libraries_say() -> Result<()> {
    const TEST: &str = "live_flows_get_what_the_libraries_say";
    if !root::available(TEST)? {
        return Ok(());
    }
    let Some(models) = Models::train(TEST)? else { return Ok(()) };
    for (name, features) in [MODELS[0], MODELS[4], MODELS[5], MODELS[7]] {
        let link = Link::new()?;
        let options = models.options(name, features);
        let mut arguments = vec![WIRE, "--idle-timeout=2", "--system-visibility-mode=0"];
        arguments.extend(METERED);
        // What else is on the wire is of no kind.
        arguments.extend(options.iter().map(String::as_str));
        let meter = Meter::start(&link.far, &arguments)?;
        let capture = models.folder.join("flows.pcap");
        let capture = capture.to_string_lossy();
        link.near.run("tcpreplay", &["-q", "-i", WIRE, "--pps=4000", &capture])?;
        meter
            .wait_for(|flows| flows.iter().filter(|flow| flow["protocol"] == 17).count() >= 600)?;
        let log = meter.stop()?;
        log.check_balance()?;
        let flows = log.flows.iter().filter(|flow| flow["dst_port"] == 443);
        let rows: Vec<_> = flows.map(ToString::to_string).collect();
        ensure!(rows.len() == 600, "{name}: {} flows", rows.len());
        let file = models.folder.join("live.jsonl");
        fs::write(&file, rows.join("\n"))?;
        models.check(name, &file)?;
    }
    Ok(())
}
