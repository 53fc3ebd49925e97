//! Answers as a table of text, as psql draws them.

/// Decimals shown of a fraction; the answer itself is not rounded.
const DECIMALS: usize = 2;

/// Draws `rows` under `header`; `None` is NULL and stays empty.
pub(super) fn draw(header: &[String], rows: &[Vec<Option<String>>]) -> String {
    let cells: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| shorten(cell.as_deref().unwrap_or_default())).collect()).collect();
    let widths: Vec<usize> = (0..header.len())
        .map(|column| {
            let cells = cells.iter().filter_map(|row| row.get(column)).flat_map(|cell| cell.lines());
            cells.map(|line| line.chars().count()).chain([header[column].chars().count()]).max().unwrap_or(0)
        })
        .collect();
    let numeric: Vec<bool> = (0..header.len())
        .map(|column| cells.iter().filter_map(|row| row.get(column)).all(|cell| cell.parse::<f64>().is_ok()))
        .collect();
    let mut out = String::new();
    line(&mut out, header, &widths, &vec![false; header.len()]);
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
    out.push_str(&rule.join("+"));
    out.push('\n');
    for row in &cells {
        // A cell may hold several lines (a plan): each becomes a line of its own.
        let height = row.iter().map(|cell| cell.lines().count()).max().unwrap_or(1).max(1);
        for index in 0..height {
            let part: Vec<String> =
                row.iter().map(|cell| cell.lines().nth(index).unwrap_or_default().to_owned()).collect();
            line(&mut out, &part, &widths, &numeric);
        }
    }
    out
}

fn line(out: &mut String, cells: &[String], widths: &[usize], right: &[bool]) {
    let cells: Vec<String> = cells
        .iter()
        .zip(widths)
        .zip(right)
        .map(|((cell, &width), &right)| if right { format!(" {cell:>width$} ") } else { format!(" {cell:<width$} ") })
        .collect();
    out.push_str(cells.join("|").trim_end());
    out.push('\n');
}

/// A fraction with many decimals is hard to read.
fn shorten(cell: &str) -> String {
    match (cell.split_once('.'), cell.parse::<f64>()) {
        (Some((_, decimals)), Ok(value)) if decimals.len() > DECIMALS => format!("{value:.DECIMALS$}"),
        _ => cell.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn numbers_stand_right_and_null_is_empty() {
        let header = ["hour".to_owned(), "mean".to_owned()];
        let cell = |text: &str| Some(text.to_owned());
        let rows = [vec![cell("06:00"), cell("12.34567")], vec![cell("07:00\nlate"), cell("3")]];
        expect![[r#"
             hour  | mean
            -------+-------
             06:00 | 12.35
             07:00 |     3
             late  |
        "#]]
        .assert_eq(&draw(&header, &rows));
        expect![[r#"
             a
            ---

        "#]]
        .assert_eq(&draw(&["a".to_owned()], &[vec![None]]));
    }
}
