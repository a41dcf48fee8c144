/// What later messages of a key wait for, and are not themselves waiting: a condition on a row named by a
/// prefix, with one `?` that is 1 where nothing under review counts. What came before its time is none: it
/// may wait for those very others. Nor is what stands for nothing that has to come first, a conflict or a
/// refused replay.
macro_rules! holding_up {
    ($row:literal) => {
        concat!(
            "((",
            $row,
            "state = 'retry' AND ",
            $row,
            "reason <> 'early') OR (",
            $row,
            "state = 'review' AND ",
            $row,
            "reason NOT IN ('early', 'conflict', 'replay_refused') AND ? = 0))"
        )
    };
}
