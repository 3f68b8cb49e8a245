//! The fuzzer's corpus, sent through both platforms.

use std::{fs, path::Path};

use tests::datapath::{differential::with_harness, fuzz};

#[test]
fn native_and_kernel_agree_on_the_corpus() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/packets");
    let mut files: Vec<_> = fs::read_dir(&directory)
        .expect("the corpus")
        .map(|entry| entry.expect("a file").path())
        .collect();
    files.sort();
    assert!(files.len() > 50, "{} files", files.len());
    with_harness(move |harness| {
        let mut frames = 0;
        for file in files {
            let data = fs::read(&file).expect("a file");
            frames += fuzz::run(&data);
            harness.reset();
            for (side, frame) in fuzz::frames(&data) {
                harness.send_bytes(side, frame);
            }
        }
        println!("{frames} frames");
    });
}
