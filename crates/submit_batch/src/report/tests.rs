//! The texts as people read them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use model::batch::Manifest;
use model::{BatchId, GpuMode};

use super::*;
use crate::arguments::{Asked, Wish, parse};
use crate::order::{Item, Sorted, manifests};
use crate::walk::Media;

fn wish(options: &str) -> Wish {
    let line = format!("submit_batch transcribe /talks {options}");
    match parse(line.split_whitespace().map(Into::into)) {
        Ok(Asked::Batch(wish)) => *wish,
        other => panic!("{other:?}"),
    }
}

fn media(relative: &str) -> Media {
    Media { path: Path::new("/talks").join(relative), relative: relative.into() }
}

fn item(relative: &str, stem: &str, media_s: Option<f64>) -> Item {
    let folder = Path::new("/talks").join(relative).parent().unwrap().to_owned();
    let outputs = ["srt", "txt"].map(|kind| (kind.to_owned(), folder.join(format!("{stem}.{kind}"))));
    Item { media: media(relative), outputs: BTreeMap::from(outputs), media_s }
}

fn three() -> Vec<Item> {
    vec![
        item("a/ep1.mp4", "ep1.mp4", Some(754.2)),
        item("a/ep1.webm", "ep1.webm", Some(3_700.0)),
        item("b/\u{1b}[2Jnasty.mp3", "\u{1b}[2Jnasty", None),
    ]
}

fn in_parts(options: &str) -> Vec<Manifest> {
    let id = BatchId::new("whisper-talks-2025-02-05").unwrap();
    let created_at = "2025-02-05T10:30:00Z".parse().unwrap();
    manifests(&wish(options), &three(), &id, Path::new("/talks"), created_at).unwrap()
}

#[test]
fn a_dry_run_shows_items_and_what_is_skipped_and_why() {
    let parts = in_parts("--batch-size 2 --formats txt,srt");
    let batch = BatchId::new("whisper-talks-2025-02-04").unwrap();
    let sorted = Sorted {
        fresh: three(),
        finished: ["c.mp4", "d.mp4", "e.mp4", "f.mp4"].map(media).to_vec(),
        live: vec![(media("g.mp4"), batch)],
    };
    let passed_over = [("notes.pdf", Why::NotMedia), ("x.mp4.part", Why::Partial), ("old.zip", Why::Archive)]
        .map(|(name, why)| PassedOver { path: Path::new("/talks").join(name), why });
    let base = Path::new("/talks");
    let mut text = items_table(&parts, base);
    text.push_str(&skipped(&sorted, &passed_over, base));
    text.push_str(&batches("would submit", &parts, 50));
    insta::assert_snapshot!(text);
}

#[test]
fn of_many_items_the_longest_are_listed() {
    let items: Vec<Item> =
        (0..60_u8).map(|n| item(&format!("{n}.mp4"), &n.to_string(), Some(60.0 * f64::from(n)))).collect();
    let id = BatchId::new("whisper-talks-2025-02-05").unwrap();
    let created_at = "2025-02-05T10:30:00Z".parse().unwrap();
    let parts =
        |options: &str| manifests(&wish(options), &items, &id, Path::new("/talks"), created_at).unwrap();
    insta::assert_snapshot!("many_items", items_table(&parts(""), Path::new("/talks")));
    let in_parts = items_table(&parts("--batch-size 5"), Path::new("/talks"));
    let first: Vec<&str> = in_parts.lines().filter_map(|line| line.split('.').next()).collect();
    assert_eq!(first[1..11], ["4", "3", "2", "1", "0", "9", "8", "7", "6", "5"], "part after part");
    assert!(in_parts.ends_with("… and 50 more; --json lists all\n"), "{in_parts}");
}

#[test]
fn parts_are_numbered_and_hold_what_every_item_gets() {
    let parts =
        in_parts("--batch-size 2 --language en --no-vad --overwrite --gpu-mode exclusive --priority 5");
    let ids: Vec<&str> = parts.iter().map(|part| part.header.batch_id.as_str()).collect();
    assert_eq!(ids, ["whisper-talks-2025-02-05", "whisper-talks-2025-02-05-2"]);
    assert_eq!(parts.iter().map(|part| part.items.len()).collect::<Vec<_>>(), [2, 1]);
    let header = &parts[1].header;
    assert_eq!(header.gpu_mode, GpuMode::Exclusive);
    assert_eq!(
        serde_json::Value::Object(header.script_args.clone()),
        serde_json::json!({ "language": "en", "vad_filter": false, "overwrite": true })
    );
    assert!(in_parts("")[0].header.script_args.is_empty(), "a script's own habits hold");
    for part in parts {
        assert_eq!(
            Manifest::parse(&part.text().unwrap()),
            Some(part),
            "a manifest is read as it was written"
        );
    }
}

fn ended(media: &str, status: &str, media_s: Option<f64>, took_s: Option<f64>) -> EndedItem {
    let error = (status == "failed")
        .then(|| ("no_audio".to_owned(), "the file has no sound; look at it with a player\nmore".to_owned()));
    EndedItem {
        media: PathBuf::from(media),
        status: status.to_owned(),
        media_s,
        took_s,
        outputs: ["srt", "txt"].map(|kind| format!("/talks/{media}.{kind}")).to_vec(),
        error,
    }
}

#[test]
fn the_summary_has_a_row_an_item_and_a_line_about_all() {
    let items = [
        ended("/talks/a/ep1.mp4", "complete", Some(754.2), Some(53.9)),
        ended(
            "/talks/a/a very long name of an episode that nobody would type by hand.webm",
            "complete",
            Some(60.0),
            Some(0.5),
        ),
        ended("/talks/b/silent.mp4", "failed", Some(12.0), None),
        ended("/talks/b/late.mp4", "queued", None, None),
    ];
    insta::assert_snapshot!(summary(&items, Path::new("/talks")));
}

#[test]
fn a_long_summary_lists_only_what_failed() {
    let mut items: Vec<EndedItem> =
        (0..150).map(|n| ended(&format!("/talks/{n}.mp4"), "complete", Some(60.0), Some(6.0))).collect();
    items[70] = ended("/talks/70.mp4", "failed", Some(60.0), None);
    let text = summary(&items, Path::new("/talks"));
    assert_eq!(text.lines().count(), 4, "{text}");
    assert!(text.contains("70.mp4  failed") && text.contains("150 items: 149 complete, 1 failed"), "{text}");
}
