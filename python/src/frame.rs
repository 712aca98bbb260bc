//! How do flows become what `pandas.read_csv` makes of their CSV, without the CSV?
//!
//! Integers and texts as they are, unless one of the texts would not be read as text. Floats do go
//! through text, as pandas does not read all digits of them.

use arrow_array::ArrayRef;
use arrow_array::cast::AsArray as _;
use arrow_schema::DataType;
use flowmeter::format::arrow::Texts;
use hashbrown::HashMap;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString};

use crate::arrays::{self, Parts};
use crate::csv::Chosen;
use crate::options::Options;
use crate::table::{Table, whole};

/// Columns, how many flows there are, and the report. Texts that are `floats` among the names are to be
/// read as such.
type Frame<'py> = (Option<Vec<Parts<'py>>>, usize, Option<String>);

/// The flows of captures by columns; no columns if they have to be read as CSV. `missing` stands for an
/// empty text; `floats` are the columns of such, which come last, as one text of CSV.
#[pyfunction]
pub fn frame<'py>(
    py: Python<'py>,
    options: Options,
    chosen: Chosen,
    floats: Vec<String>,
    missing: Bound<'py, PyAny>,
) -> PyResult<Frame<'py>> {
    let (table, report) = whole(py, options, &chosen, Texts::AsCsv)?;
    let mut columns = Vec::new();
    for (place, field) in table.schema().fields().iter().enumerate() {
        let arrays = table.arrays(place);
        if floats.contains(field.name()) {
            continue;
        }
        if *field.data_type() == DataType::Utf8 {
            let Some(texts) = texts(py, &arrays, &missing)? else {
                return Ok((None, table.len(), report));
            };
            columns.push((field.name().clone(), "text", texts.into_any(), None));
        } else {
            let parts = arrays::parts(py, field, &arrays)?;
            if parts.3.is_some() {
                // What is missing makes floats of integers.
                return Ok((None, table.len(), report));
            }
            columns.push(parts);
        }
    }
    if !floats.is_empty() {
        let text = PyBytes::new(py, &csv(&table, &floats)).into_any();
        columns.push((String::new(), "csv", text, None));
    }
    Ok((Some(columns), table.len(), report))
}

/// The texts of a column; none if one of them would be read as something else.
fn texts<'py>(
    py: Python<'py>,
    arrays: &[&ArrayRef],
    missing: &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyList>>> {
    let mut known: HashMap<&str, Bound<'py, PyAny>> = HashMap::new();
    let mut all = Vec::new();
    for array in arrays {
        for text in array.as_string::<i32>().iter().map(Option::unwrap_or_default) {
            if let Some(object) = known.get(text) {
                all.push(object.clone());
                continue;
            }
            let object = match text {
                "" => missing.clone(),
                text if is_plain(text) => PyString::new(py, text).into_any(),
                _ => return Ok(None),
            };
            known.insert(text, object.clone());
            all.push(object);
        }
    }
    PyList::new(py, all).map(Some)
}

/// Whether a text is surely read as a text. Some that are too are not: they are rare.
fn is_plain(text: &str) -> bool {
    let trimmed = text.trim();
    if trimmed.is_empty() || text.bytes().any(|byte| byte < b' ') {
        return false;
    }
    let is_number = trimmed.parse::<f64>().is_ok()
        || trimmed.trim_end_matches(['e', 'E', '+', '-']).parse::<f64>().is_ok();
    // `<NA>`, `#N/A`, `-1.#IND`, `true` and their like.
    let is_word = trimmed.len() <= 8 && {
        let word = trimmed.to_ascii_lowercase();
        let word = word.trim_matches(['<', '>', '#', '-', '+']);
        ["na", "n/a", "n/a n/a", "nan", "null", "none", "true", "false"].contains(&word)
            || word.contains('#')
    };
    !is_number && !is_word
}

/// The rows of columns of texts that need no quotes.
fn csv(table: &Table, names: &[String]) -> Vec<u8> {
    let fields = table.schema().fields();
    let places = names.iter().filter_map(|name| fields.iter().position(|f| f.name() == name));
    let columns: Vec<_> = places.map(|place| table.arrays(place)).collect();
    let mut out = names.join(",").into_bytes();
    out.push(b'\n');
    let batches = columns.first().map_or(0, Vec::len);
    for batch in 0..batches {
        let columns: Vec<_> =
            columns.iter().map(|column| column[batch].as_string::<i32>()).collect();
        let rows = columns.first().map_or(0, arrow_array::Array::len);
        for row in 0..rows {
            for (n, column) in columns.iter().enumerate() {
                if n > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(column.value(row).as_bytes());
            }
            out.push(b'\n');
        }
    }
    out
}
