//! Answers as text: tables as psql draws them, and comma-separated values.

/// A row as it came: `None` is NULL.
pub(crate) type Row = Vec<Option<String>>;

/// Draws `rows` under `header`; NULL stays empty.
pub(crate) fn draw(header: &[String], rows: &[Row]) -> String {
    let cells: Vec<Vec<&str>> =
        rows.iter().map(|row| row.iter().map(|cell| cell.as_deref().unwrap_or_default()).collect()).collect();
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

/// The rows as comma-separated values (RFC 4180) under a header line; NULL is an empty field, the empty string a quoted one.
pub(crate) fn csv(header: &[String], rows: &[Row]) -> String {
    let mut out = String::new();
    let mut record = |fields: Vec<Option<&str>>| {
        let fields: Vec<String> =
            fields.into_iter().map(|field| field.map_or_else(String::new, field_of_csv)).collect();
        out.push_str(&fields.join(","));
        out.push('\n');
    };
    record(header.iter().map(|name| Some(name.as_str())).collect());
    for row in rows {
        record(row.iter().map(Option::as_deref).collect());
    }
    out
}

fn field_of_csv(text: &str) -> String {
    if text.is_empty() || text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
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

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn numbers_stand_right_and_null_is_empty() {
        let header = ["hour".to_owned(), "mean".to_owned()];
        let cell = |text: &str| Some(text.to_owned());
        let rows = [vec![cell("06:00"), cell("12.35")], vec![cell("07:00\nlate"), cell("3")]];
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

    #[test]
    fn csv_tells_null_from_empty_and_quotes_what_must_be() {
        let header = ["a".to_owned(), "b,c".to_owned()];
        let cell = |text: &str| Some(text.to_owned());
        expect![[r#"
            a,"b,c"
            ,""
            "say ""hi""",1
        "#]]
        .assert_eq(&csv(&header, &[vec![None, cell("")], vec![cell("say \"hi\""), cell("1")]]));
    }
}
