//! Which columns does a model take?

use ort::session::{Session, SessionInputValue};
use ort::value::{Tensor, TensorElementType, ValueType};

use crate::fields::columns::{Group, Kind};
use crate::fields::schema::UnknownColumn;
use crate::fields::{Schema, TimeUnit, Value};
use crate::flow::Flow;

/// What a model's metadata may have its columns as, separated by commas.
const FEATURES: &str = "features";

/// What a model takes, and of which columns.
#[derive(Debug)]
pub struct Inputs {
    inputs: Vec<Input>,
    /// Rows that it takes at a time, if that is not any number.
    pub fixed_rows: Option<usize>,
}

/// A tensor, of which each flow has a row.
#[derive(Debug)]
struct Input {
    name: String,
    element: Element,
    /// Its axes behind that of the rows.
    axes: Vec<i64>,
    /// Where the schema has its columns.
    places: Vec<usize>,
    /// Elements of a row.
    width: usize,
}

/// What a tensor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    F32,
    F64,
    I64,
    I32,
    Bool,
    Text,
}

/// A tensor's elements.
enum Elements {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I64(Vec<i64>),
    I32(Vec<i32>),
    Bool(Vec<bool>),
    Text(Vec<String>),
}

/// What a model is run on.
pub type Values = Vec<(String, SessionInputValue<'static>)>;

impl Inputs {
    /// Those of the model. An error says what is to be done.
    pub fn of(session: &Session, features: &[String], schema: &Schema) -> Result<Self, String> {
        let mut fixed_rows = None;
        let mut inputs = Vec::new();
        for outlet in session.inputs() {
            let (input, rows) = Input::new(outlet.name(), outlet.dtype())?;
            if rows >= 0 {
                fixed_rows = Some(rows as usize);
            }
            inputs.push(input);
        }
        if fixed_rows.is_some_and(|rows| rows != 1) {
            return Err(
                "it takes a certain number of rows at a time; export it with a first axis of \
                        any length, or of 1"
                    .into(),
            );
        }
        let own = session.metadata().ok().and_then(|metadata| metadata.custom(FEATURES));
        let own = own.map(|text| text.split(',').map(|name| name.trim().to_owned()).collect());
        let names = if features.is_empty() { own } else { Some(features.to_vec()) };
        match names {
            Some(names) => share(&names, &mut inputs, schema)?,
            None => by_their_names(&mut inputs, schema)?,
        }
        Ok(Self { inputs, fixed_rows })
    }

    /// Zeros, and empty texts.
    pub fn nothing(&self, rows: usize) -> ort::Result<Values> {
        let value = |input: &Input| {
            let mut elements = input.element.none(rows * input.width);
            (0..rows * input.width).for_each(|_| elements.push_nothing());
            Ok((input.name.clone(), input.tensor(elements, rows)?))
        };
        self.inputs.iter().map(value).collect()
    }

    /// The columns of these flows, and of each flow whether it has all that the model needs.
    pub fn of_flows<T>(
        &self,
        schema: &Schema,
        flows: &[(T, Flow)],
    ) -> ort::Result<(Values, Vec<bool>)> {
        let rows = flows.len();
        let mut are_known = vec![true; rows];
        let value = |input: &Input| {
            let mut elements = input.element.none(rows * input.width);
            for ((_, flow), is_known) in flows.iter().zip(&mut are_known) {
                schema.values(flow, &input.places, |value| *is_known &= elements.push(value));
            }
            Ok((input.name.clone(), input.tensor(elements, rows)?))
        };
        let values = self.inputs.iter().map(value).collect::<ort::Result<_>>()?;
        Ok((values, are_known))
    }
}

/// Gives the columns with these names to the inputs, in order.
fn share(names: &[String], inputs: &mut [Input], schema: &Schema) -> Result<(), String> {
    let mut names = names.iter();
    let mut left_out = Vec::new();
    for input in &mut *inputs {
        let mut width = 0;
        while width < input.width
            && let Some(name) = names.next()
        {
            width += input.take(name, schema)?;
        }
        if width != input.width {
            left_out.push(format!("`{}` takes {} values, not {width}", input.name, input.width));
        }
    }
    let more = names.count();
    if more > 0 {
        left_out.push(format!("{more} columns are left over"));
    }
    if left_out.is_empty() {
        return Ok(());
    }
    Err(format!("its inputs do not fit the features: {}", left_out.join("; ")))
}

/// Gives each input the column of its name.
fn by_their_names(inputs: &mut [Input], schema: &Schema) -> Result<(), String> {
    for input in &mut *inputs {
        let name = input.name.clone();
        if !schema.names().any(|column| column == name) {
            let (why, width) = (Schema::missing(&name), input.width);
            return Err(match why {
                UnknownColumn::Absent { .. } => why.to_string(),
                _ => format!(
                    "its input `{name}` is not named after a column; say by --model-features which \
                     columns it takes, in order: {width} in all"
                ),
            });
        }
        let width = input.take(&name, schema)?;
        if width != input.width {
            return Err(format!("its input `{name}` takes {} values, not {width}", input.width));
        }
    }
    Ok(())
}

impl Input {
    /// An input that takes no columns yet, and how many rows it takes: less than 0 for any number.
    fn new(name: &str, kind: &ValueType) -> Result<(Self, i64), String> {
        let ValueType::Tensor { ty, shape, .. } = kind else {
            return Err(format!("its input `{name}` is {kind}, and no tensor"));
        };
        let element = match ty {
            TensorElementType::Float32 => Element::F32,
            TensorElementType::Float64 => Element::F64,
            TensorElementType::Int64 => Element::I64,
            TensorElementType::Int32 => Element::I32,
            TensorElementType::Bool => Element::Bool,
            TensorElementType::String => Element::Text,
            other => {
                return Err(format!(
                    "its input `{name}` takes {other}; float, double, int64, int32, bool and string \
                     are known"
                ));
            }
        };
        let Some((rows, axes)) = shape.split_first() else {
            return Err(format!("its input `{name}` is one value, without an axis for flows"));
        };
        if let Some(axis) = axes.iter().find(|axis| **axis < 1) {
            return Err(format!(
                "its input `{name}` has an axis of unknown length ({axis}) behind the first; export \
                 it with fixed ones"
            ));
        }
        let width = axes.iter().try_fold(1_usize, |all, axis| {
            all.checked_mul(*axis as usize).filter(|width| *width <= MOST_VALUES)
        });
        let width = width
            .ok_or_else(|| format!("its input `{name}` takes more than {MOST_VALUES} values"))?;
        let (name, axes) = (name.to_owned(), axes.to_vec());
        Ok((Self { name, element, axes, places: Vec::new(), width }, *rows))
    }

    /// Takes the column of this name. Gives how many values of a row that is.
    fn take(&mut self, name: &str, schema: &Schema) -> Result<usize, String> {
        let place = schema.names().position(|column| column == name);
        let Some(place) = place else { return Err(Schema::missing(name).to_string()) };
        let Some((kind, group)) = schema.kind(place) else {
            return Err(Schema::missing(name).to_string());
        };
        let is_whole = match kind {
            Kind::Unsigned | Kind::Signed | Kind::Bool | Kind::List => true,
            Kind::Time | Kind::TimeList => schema.options().unit == TimeUnit::Ms,
            Kind::Float | Kind::FloatList | Kind::Text | Kind::Url | Kind::TextList => false,
        };
        let is_text = matches!(kind, Kind::Text | Kind::Url);
        let fits = match self.element {
            Element::F32 | Element::F64 => !is_text,
            Element::I64 | Element::I32 => is_whole,
            Element::Bool => kind == Kind::Bool,
            Element::Text => is_text,
        };
        let length = match kind {
            Kind::List | Kind::TimeList if group == Some(Group::Splt) => {
                schema.options().splt as usize
            }
            Kind::List | Kind::TimeList | Kind::FloatList | Kind::TextList => {
                return Err(format!(
                    "`{name}` is a list whose length differs from flow to flow: no model takes it"
                ));
            }
            _ => 1,
        };
        if !fits {
            let taken = self.element.words();
            return Err(format!(
                "`{name}` is {}, but its input `{}` takes {taken}",
                words(kind, is_whole),
                self.name
            ));
        }
        self.places.push(place);
        Ok(length)
    }

    fn tensor(&self, elements: Elements, rows: usize) -> ort::Result<SessionInputValue<'static>> {
        let mut shape = Vec::with_capacity(1 + self.axes.len());
        shape.push(rows as i64);
        shape.extend(&self.axes);
        Ok(match elements {
            Elements::F32(all) => Tensor::from_array((shape, all))?.into(),
            Elements::F64(all) => Tensor::from_array((shape, all))?.into(),
            Elements::I64(all) => Tensor::from_array((shape, all))?.into(),
            Elements::I32(all) => Tensor::from_array((shape, all))?.into(),
            Elements::Bool(all) => Tensor::from_array((shape, all))?.into(),
            Elements::Text(all) => Tensor::from_string_array((shape, all.as_slice()))?.into(),
        })
    }
}

/// A row has no more.
const MOST_VALUES: usize = 1 << 20;

/// What a column has, for a reader.
fn words(kind: Kind, is_whole: bool) -> &'static str {
    match kind {
        Kind::Bool => "yes or no",
        Kind::Text | Kind::Url => "a text",
        _ if is_whole => "a whole number",
        _ => "a number with a fraction",
    }
}

impl Element {
    /// For a reader.
    fn words(self) -> &'static str {
        match self {
            Self::F32 | Self::F64 => "numbers",
            Self::I64 | Self::I32 => "whole numbers",
            Self::Bool => "yes or no",
            Self::Text => "texts",
        }
    }

    fn none(self, capacity: usize) -> Elements {
        match self {
            Self::F32 => Elements::F32(Vec::with_capacity(capacity)),
            Self::F64 => Elements::F64(Vec::with_capacity(capacity)),
            Self::I64 => Elements::I64(Vec::with_capacity(capacity)),
            Self::I32 => Elements::I32(Vec::with_capacity(capacity)),
            Self::Bool => Elements::Bool(Vec::with_capacity(capacity)),
            Self::Text => Elements::Text(Vec::with_capacity(capacity)),
        }
    }
}

impl Elements {
    fn push_nothing(&mut self) {
        match self {
            Self::F32(all) => all.push(0.0),
            Self::F64(all) => all.push(0.0),
            Self::I64(all) => all.push(0),
            Self::I32(all) => all.push(0),
            Self::Bool(all) => all.push(false),
            Self::Text(all) => all.push(String::new()),
        }
    }

    /// Adds the value. Whether it is known, or can be said to be unknown.
    fn push(&mut self, value: &Value<'_>) -> bool {
        if let Value::List(list) = value {
            let mut are_known = true;
            list.runs(|value, count| {
                for _ in 0..count {
                    are_known &= self.push(&value);
                }
            });
            return are_known;
        }
        match self {
            Self::F32(all) => all.push(number(value).unwrap_or(f64::NAN) as f32),
            Self::F64(all) => all.push(number(value).unwrap_or(f64::NAN)),
            Self::Text(all) => all.push(text(value)),
            Self::I64(all) => return push_known(all, whole(value)),
            Self::I32(all) => {
                return push_known(all, whole(value).and_then(|n| i32::try_from(n).ok()));
            }
            Self::Bool(all) => return push_known(all, whole(value).map(|n| n != 0)),
        }
        true
    }
}

/// Adds the value, or something in its place. Whether it is known.
fn push_known<T: Default>(all: &mut Vec<T>, value: Option<T>) -> bool {
    let is_known = value.is_some();
    all.push(value.unwrap_or_default());
    is_known
}

fn number(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::U64(n) => Some(*n as f64),
        Value::I64(n) => Some(*n as f64),
        Value::F64(x) => Some(*x),
        Value::Bool(b) => Some(f64::from(u8::from(*b))),
        Value::Seconds(ns) => Some(*ns as f64 / 1e9),
        _ => None,
    }
}

fn whole(value: &Value<'_>) -> Option<i64> {
    match value {
        Value::U64(n) => i64::try_from(*n).ok(),
        Value::I64(n) => Some(*n),
        Value::Bool(b) => Some(i64::from(*b)),
        _ => None,
    }
}

/// As it is written; an unknown one is empty. A zero byte, which the runtime takes for an end, is not
/// passed on.
fn text(value: &Value<'_>) -> String {
    let mut text = Vec::new();
    value.push_text(&mut text);
    text.retain(|byte| *byte != 0);
    String::from_utf8_lossy(&text).into_owned()
}
