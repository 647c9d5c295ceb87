//! Bytes of the journal: whatever a file has in the place of a trail, it is one or it is refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pointsman_core::contract::Columns;
use pointsman_core::journal::{TrailError, VERSION, decode, encode};

fuzz_target!(|input: &[u8]| {
    let columns = Columns::default();
    let found = decode(input, &columns);
    match (&found, input.first()) {
        (Err(TrailError::Newer { found }), Some(first)) => assert!(found == first && *found > VERSION),
        (Ok(_), Some(first)) => assert!((1..=VERSION).contains(first)),
        (Err(TrailError::Damaged(why)), _) => assert!(!why.is_empty()),
        (Ok(_) | Err(TrailError::Newer { .. }), None) => panic!("nothing is no trail"),
    }
    if let Ok(trail) = found {
        // Numbers may have been written longer than they need; what they say is the same.
        let again = encode(&trail);
        assert!(again.len() <= input.len());
        let read = decode(&again, &columns).expect("what was written is read");
        assert_eq!((read.arrived, &read.facts, &read.labels), (trail.arrived, &trail.facts, &trail.labels));
        assert_eq!((&read.steps, read.left_out), (&trail.steps, trail.left_out));
        assert_eq!(encode(&read), again);
        assert!(trail.questions().count() <= trail.steps.len());
    }
});
