//! How do flows become columns of Arrow's?
//!
//! | column | Arrow |
//! |---|---|
//! | unsigned, integer | `Int64` |
//! | float | `Float64` |
//! | boolean | `Boolean` |
//! | text | `Utf8` |
//! | time | `Int64` in ms, or `Float64` where the unit is finer |
//! | list | `List` of these |
//!
//! Counts are signed, as differences of them are often taken: of unsigned ones, most programs give a
//! large number for a negative difference. A number above 2⁶³ − 1, which a damaged capture's times may
//! be, is null.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::builder::{
    BooleanBuilder, Float64Builder, Int64Builder, ListBuilder, StringBuilder,
};
use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::{DataType, Field, Fields, Schema as ArrowSchema, SchemaRef};

use crate::fields::columns::Kind;
use crate::fields::sequence::seconds;
use crate::fields::{Schema, TimeUnit, Value};
use crate::flow::Flow;

/// Flows in a batch, at most.
pub const ROWS: usize = 65_536;
/// Bytes of a batch's values behind which it is full: long lists and texts have fewer flows in it.
const BYTES: usize = 64 << 20;

/// Collects flows until they are a batch.
pub struct Rows {
    schema: Arc<Schema>,
    arrow: SchemaRef,
    columns: Vec<Column>,
    flows: usize,
    bytes: usize,
    text: Vec<u8>,
}

/// The columns as Arrow describes them. A field's metadata has its `unit`.
pub fn schema(schema: &Schema) -> ArrowSchema {
    let is_whole = schema.options().unit == TimeUnit::Ms;
    let field = |(name, (kind, unit)): (&str, (Kind, &str))| {
        let field = Field::new(name, data_type(kind, is_whole), true);
        match unit {
            "" => field,
            unit => field.with_metadata(HashMap::from([("unit".to_owned(), unit.to_owned())])),
        }
    };
    ArrowSchema::new(schema.names().zip(schema.kinds()).map(field).collect::<Fields>())
}

fn data_type(kind: Kind, is_whole: bool) -> DataType {
    let list = |item| DataType::List(Arc::new(Field::new_list_field(item, true)));
    let time = if is_whole { DataType::Int64 } else { DataType::Float64 };
    match kind {
        Kind::Unsigned | Kind::Signed => DataType::Int64,
        Kind::Float => DataType::Float64,
        Kind::Time => time,
        Kind::Bool => DataType::Boolean,
        Kind::Text | Kind::Url => DataType::Utf8,
        Kind::List => list(DataType::Int64),
        Kind::TimeList => list(time),
        Kind::FloatList => list(DataType::Float64),
        Kind::TextList => list(DataType::Utf8),
    }
}

impl Rows {
    /// For flows with the columns of `schema`.
    pub fn new(schema: Arc<Schema>) -> Self {
        let arrow = Arc::new(self::schema(&schema));
        let columns = arrow.fields().iter().map(|field| Column::new(field.data_type())).collect();
        Self { schema, arrow, columns, flows: 0, bytes: 0, text: Vec::new() }
    }

    /// The columns.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.arrow)
    }

    /// Adds a flow.
    pub fn push(&mut self, flow: &Flow) {
        let mut columns = self.columns.iter_mut();
        self.schema.visit(flow, |value| {
            if let Some(column) = columns.next() {
                self.bytes += column.push(value, &mut self.text);
            }
        });
        self.flows += 1;
    }

    /// Flows in the batch.
    pub fn len(&self) -> usize {
        self.flows
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.flows == 0
    }

    /// Whether the batch is to be taken before the next flow.
    pub fn is_full(&self) -> bool {
        self.flows >= ROWS || self.bytes >= BYTES
    }

    /// Takes the batch.
    pub fn take(&mut self) -> RecordBatch {
        let rows = RecordBatchOptions::new().with_row_count(Some(self.flows));
        (self.flows, self.bytes) = (0, 0);
        let arrays = self.columns.iter_mut().map(Column::finish).collect();
        RecordBatch::try_new_with_options(self.schema(), arrays, &rows)
            .expect("each column has a value per flow, of the schema's type")
    }
}

/// A column in the making.
enum Column {
    Int(Int64Builder),
    Float(Float64Builder),
    Bool(BooleanBuilder),
    Text(StringBuilder),
    Ints(ListBuilder<Int64Builder>),
    Floats(ListBuilder<Float64Builder>),
    Texts(ListBuilder<StringBuilder>),
}

impl Column {
    fn new(data_type: &DataType) -> Self {
        match data_type {
            DataType::Int64 => Self::Int(Int64Builder::new()),
            DataType::Float64 => Self::Float(Float64Builder::new()),
            DataType::Boolean => Self::Bool(BooleanBuilder::new()),
            DataType::List(item) => match item.data_type() {
                DataType::Int64 => Self::Ints(ListBuilder::new(Int64Builder::new())),
                DataType::Float64 => Self::Floats(ListBuilder::new(Float64Builder::new())),
                _ => Self::Texts(ListBuilder::new(StringBuilder::new())),
            },
            _ => Self::Text(StringBuilder::new()),
        }
    }

    /// Adds a value. Gives about how many bytes it takes.
    fn push(&mut self, value: &Value, text: &mut Vec<u8>) -> usize {
        match self {
            Self::Int(builder) => builder.append_option(int(value)),
            Self::Float(builder) => builder.append_option(float(value)),
            Self::Bool(builder) => {
                builder.append_option(if let Value::Bool(b) = value { Some(*b) } else { None });
            }
            Self::Text(builder) => return push_text(builder, value, text),
            Self::Ints(builder) => {
                let length = each(value, |value, count| {
                    builder.values().extend(std::iter::repeat_n(int(&value), count));
                });
                builder.append(length.is_some());
                return 8 * length.unwrap_or(0);
            }
            Self::Floats(builder) => {
                let length = each(value, |value, count| {
                    builder.values().extend(std::iter::repeat_n(float(&value), count));
                });
                builder.append(length.is_some());
                return 8 * length.unwrap_or(0);
            }
            Self::Texts(builder) => {
                let Value::Texts(texts) = value else {
                    builder.append(false);
                    return 0;
                };
                texts.iter().for_each(|text| builder.values().append_value(text));
                builder.append(true);
                return texts.iter().map(String::len).sum();
            }
        }
        8
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Int(builder) => Arc::new(builder.finish()),
            Self::Float(builder) => Arc::new(builder.finish()),
            Self::Bool(builder) => Arc::new(builder.finish()),
            Self::Text(builder) => Arc::new(builder.finish()),
            Self::Ints(builder) => Arc::new(builder.finish()),
            Self::Floats(builder) => Arc::new(builder.finish()),
            Self::Texts(builder) => Arc::new(builder.finish()),
        }
    }
}

fn int(value: &Value) -> Option<i64> {
    match value {
        Value::U64(n) => i64::try_from(*n).ok(),
        Value::I64(n) => Some(*n),
        _ => None,
    }
}

fn float(value: &Value) -> Option<f64> {
    match value {
        Value::F64(x) => Some(*x),
        Value::U64(n) => Some(*n as f64),
        Value::I64(n) => Some(*n as f64),
        Value::Seconds(ns) => Some(seconds(*ns)),
        _ => None,
    }
}

/// The value's text, without quotes.
fn push_text(builder: &mut StringBuilder, value: &Value, text: &mut Vec<u8>) -> usize {
    match value {
        Value::Null => builder.append_null(),
        Value::Str(text) => {
            builder.append_value(text);
            return text.len();
        }
        other => {
            text.clear();
            other.push_text(text);
            builder.append_value(str::from_utf8(text).expect("text of a value is UTF-8"));
        }
    }
    text.len()
}

/// Hands the elements of a list of numbers to `visit`, in runs of equal ones. Gives how many there are;
/// none if there is no list.
fn each(value: &Value, mut visit: impl FnMut(Value<'static>, usize)) -> Option<usize> {
    let mut length = 0;
    let mut see = |value, count| {
        length += count;
        visit(value, count);
    };
    match value {
        Value::List(list) => list.runs(see),
        Value::Sequence(sequence) => sequence.values(|value| see(value, 1)),
        Value::Numbers(numbers) => numbers.iter().for_each(|n| see(Value::U64(*n), 1)),
        Value::Integers(numbers) => numbers.iter().for_each(|n| see(Value::I64(*n), 1)),
        _ => return None,
    }
    Some(length)
}

#[cfg(test)]
mod tests {
    use arrow_array::Array;
    use arrow_array::cast::AsArray as _;
    use arrow_array::types::{Float64Type, Int64Type};
    use flowmeter_common::knobs::Knobs;
    use serde_json::json;

    use super::*;
    use crate::dissect::{Details, Layer7};
    use crate::fields;
    use crate::fields::anonymize::Anonymizer;
    use crate::flow::example;

    const ALL: fields::Options = fields::Options {
        statistics: true,
        splt: 5,
        sequences: 9,
        details: true,
        visibility: true,
        ..fields::Options::DEFAULT
    };

    fn flow(unit: TimeUnit) -> Flow {
        let knobs =
            Knobs { statistics: true, splt: 9, tick_ns: unit.tick_ns(), ..Knobs::default() };
        let details = Details { risks: vec!["a".into(), "b\"".into()], ..Details::default() };
        let layer7 = Layer7 {
            application_name: "TLS".into(),
            details: Some(Box::new(details)),
            ..Layer7::default()
        };
        Flow { layer7: Some(layer7), ..example::handshake(&knobs) }
    }

    /// A value as JSON has it.
    fn json_of(array: &ArrayRef, row: usize) -> serde_json::Value {
        if array.is_null(row) {
            return serde_json::Value::Null;
        }
        match array.data_type() {
            DataType::Int64 => json!(array.as_primitive::<Int64Type>().value(row)),
            DataType::Float64 => json!(array.as_primitive::<Float64Type>().value(row)),
            DataType::Boolean => json!(array.as_boolean().value(row)),
            DataType::Utf8 => json!(array.as_string::<i32>().value(row)),
            DataType::List(_) => {
                let list = array.as_list::<i32>().value(row);
                (0..list.len()).map(|i| json_of(&list, i)).collect()
            }
            other => panic!("no column is of {other}"),
        }
    }

    /// Whether two values of JSON are the same, but for how a number is written.
    fn is_same(one: &serde_json::Value, other: &serde_json::Value) -> bool {
        match (one.as_array(), other.as_array()) {
            (Some(one), Some(other)) => {
                one.len() == other.len() && one.iter().zip(other).all(|(a, b)| is_same(a, b))
            }
            _ => one == other || one.is_number() && one.as_f64() == other.as_f64(),
        }
    }

    #[test]
    fn columns_have_the_values_of_json() {
        for unit in [TimeUnit::Ms, TimeUnit::Us] {
            let schema = Arc::new(Schema::new(fields::Options { unit, ..ALL }));
            let mut rows = Rows::new(Arc::clone(&schema));
            let flows = [flow(unit), Flow { layer7: None, id: 1, ..flow(unit) }];
            for flow in &flows {
                rows.push(flow);
            }
            assert_eq!((rows.len(), rows.is_full()), (2, false));
            let batch = rows.take();
            assert!(rows.is_empty());
            let json = super::super::Kind::Json.of(schema);
            for (row, flow) in flows.iter().enumerate() {
                let mut line = Vec::new();
                json.flow(flow, &mut line);
                let line: serde_json::Value = serde_json::from_slice(&line).expect("valid JSON");
                for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
                    let (ours, theirs) = (json_of(array, row), &line[field.name()]);
                    assert!(is_same(&ours, theirs), "{}: {ours}, not {theirs}", field.name());
                }
            }
        }
    }

    #[test]
    fn hidden_columns_are_texts() {
        let key = Anonymizer::with_key(&[7; 64]).expect("64 bytes are a key");
        let schema = Schema::new(ALL)
            .select(&["src_port", "splt_piat_ms", "src2dst_duration_ms"])
            .and_then(|schema| schema.anonymize(&["src_port", "splt_piat_ms"], key))
            .expect("all exist");
        let mut rows = Rows::new(Arc::new(schema));
        rows.push(&flow(TimeUnit::Ms));
        let batch = rows.take();
        let types: Vec<_> = batch.columns().iter().map(Array::data_type).collect();
        assert_eq!(types, [&DataType::Utf8, &DataType::Utf8, &DataType::Int64]);
        assert_eq!(batch.column(0).as_string::<i32>().value(0).len(), 128);
        let unit = batch.schema().field(2).metadata().get("unit").cloned();
        assert_eq!(unit.as_deref(), Some("ms"));
    }

    #[test]
    fn long_lists_fill_a_batch_sooner() {
        let options = fields::Options { splt: 65_535, ..ALL };
        let schema = Schema::new(options).select(&["splt_ps"]).expect("it exists");
        let mut rows = Rows::new(Arc::new(schema));
        while !rows.is_full() {
            rows.push(&flow(TimeUnit::Ms));
        }
        assert_eq!(rows.len(), BYTES.div_ceil(8 * 65_535));
    }

    #[test]
    fn numbers_beyond_the_type_are_null() {
        for (value, expected) in [(1 << 63, None), ((1 << 63) - 1, Some(i64::MAX)), (0, Some(0))] {
            assert_eq!(int(&Value::U64(value)), expected);
        }
    }
}
