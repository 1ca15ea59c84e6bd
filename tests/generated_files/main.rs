//! CRDs and reference documentation are made from the code. Here they are held against it; `cargo xtask generate` writes
//! them.

mod reference;

use std::error::Error;
use std::fs;
use std::path::Path;

use rivven_operator::api;

/// Every generated file, as path and content.
fn files() -> Result<Vec<(String, String)>, Box<dyn Error>> {
    let mut files = vec![
        ("docs/reference/phases.md".to_owned(), reference::phases()),
        ("docs/reference/reasons.md".to_owned(), reference::reasons()),
        ("docs/reference/metrics.md".to_owned(), reference::metrics()),
        ("docs/reference/fields.md".to_owned(), reference::fields()?),
    ];
    for crd in api::crds() {
        let yaml = api::crd_yaml(&crd)?;
        for folder in ["deploy/crds", "charts/rivven-operator/files/crds"] {
            files.push((format!("{folder}/{}", api::crd_file(&crd)), yaml.clone()));
        }
    }
    Ok(files)
}

#[test]
fn generated_files_are_what_the_code_makes_of_them() -> Result<(), Box<dyn Error>> {
    let write = std::env::var_os("UPDATE_GENERATED").is_some();
    let mut stale = Vec::new();
    for (path, content) in files()? {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(&path);
        if fs::read_to_string(&file).is_ok_and(|current| current == content) {
            continue;
        }
        if write {
            fs::write(&file, content)?;
            println!("wrote {path}");
        } else {
            stale.push(path);
        }
    }
    assert!(stale.is_empty(), "run `cargo xtask generate` and commit what it writes; stale: {stale:?}");
    Ok(())
}
