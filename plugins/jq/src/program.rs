//! A jq program: compiled once, run on each message.

use jaq_core::data::JustLut;
use jaq_core::load::{self, Arena, File, Loader};
use jaq_core::{Compiler, Ctx, Exn, Vars, compile};
use jaq_json::Val;
use sluicegate_plugin::log::{self, Level};
use sluicegate_plugin::{Failure, Message, Reason};

use crate::document;

const MESSAGE: &str = "$message";

/// A compiled program.
pub struct Program {
    filter: jaq_core::Filter<JustLut<Val>>,
    /// Whether it speaks of `$message`, which is costly to make.
    reads_message: bool,
}

impl Program {
    /// Compiles; all mistakes of the program, each with its line and column.
    pub fn compile(code: &str) -> Result<Self, Vec<Reason>> {
        let arena = Arena::default();
        let definitions = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
        let functions = jaq_core::funs().chain(jaq_std::funs()).chain(jaq_json::funs());

        let modules = Loader::new(definitions).load(&arena, File { code, path: () }).map_err(|errors| {
            errors.iter().flat_map(|(file, error)| unloadable(file.code, error)).collect::<Vec<_>>()
        })?;
        let filter = Compiler::default().with_funs(functions).with_global_vars([MESSAGE]).compile(modules).map_err(
            |errors| errors.iter().flat_map(|(file, errors)| undefined(file.code, errors)).collect::<Vec<_>>(),
        )?;
        Ok(Self { filter, reads_message: code.contains(MESSAGE) })
    }

    /// Runs on a message and hands over each output.
    pub fn run(&self, message: &Message, mut output: impl FnMut(Val) -> Result<(), Failure>) -> Result<(), Failure> {
        let variable = if self.reads_message { document::describe(message) } else { Val::Null };
        let context = Ctx::<JustLut<Val>>::new(&self.filter.lut, Vars::new([variable]));
        for value in self.filter.id.run((context, document::read(message)?)) {
            output(value.map_err(failure)?)?;
        }
        Ok(())
    }
}

fn failure(exception: Exn<'_, Val>) -> Failure {
    match exception.get_err() {
        // An error made of a string, as by `error("text")`, is that text; anything else in its JSON form.
        Ok(error) => Failure::reject(
            "jq_error",
            match error.into_val() {
                Val::TStr(text) => String::from_utf8_lossy(&text).into_owned(),
                other => other.to_string(),
            },
        ),
        Err(exception) => match exception.get_halt() {
            Ok(code) => Failure::reject("jq_halt", format!("the program halted with code {code}")),
            Err(_) => Failure::reject("jq_error", "the program broke out of a label it is not in"),
        },
    }
}

fn unloadable(code: &str, error: &load::Error<&str>) -> Vec<Reason> {
    match error {
        load::Error::Io(errors) => {
            errors.iter().map(|(path, _)| mistake(code, path, "there are no modules to import here")).collect()
        }
        load::Error::Lex(errors) => errors
            .iter()
            .map(|(expected, found)| mistake(code, found, &format!("expected {}", expected.as_str())))
            .collect(),
        load::Error::Parse(errors) => errors
            .iter()
            .map(|(expected, found)| mistake(code, found, &format!("expected {}", expected.as_str())))
            .collect(),
    }
}

fn undefined(code: &str, errors: &[compile::Error<&str>]) -> Vec<Reason> {
    let what = |undefined: &compile::Undefined| match undefined {
        compile::Undefined::Filter(arity) => format!("there is no filter of this name with {arity} arguments"),
        other => format!("there is no {} of this name", other.as_str()),
    };
    errors.iter().map(|(found, undefined)| mistake(code, found, &what(undefined))).collect()
}

/// A mistake with its place; `found` is a part of `code`.
fn mistake(code: &str, found: &str, what: &str) -> Reason {
    let span = load::span(code, found);
    let before = &code[..span.start];
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|&character| character != '\n').count() + 1;
    let found = match found.split_whitespace().next() {
        Some(word) => format!("`{}`", word.chars().take(40).collect::<String>()),
        None => "the end of the program".to_owned(),
    };
    Reason::new("invalid_program", format!("/program: line {line}, column {column}, at {found}: {what}"))
}

/// Sends what jq's `debug` and `stderr` print to the gateway's log.
pub fn log_to_gateway() {
    struct Gateway;

    impl ::log::Log for Gateway {
        fn enabled(&self, _: &::log::Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &::log::Record<'_>) {
            let level = match record.level() {
                ::log::Level::Error => Level::Error,
                ::log::Level::Warn => Level::Warn,
                ::log::Level::Info => Level::Info,
                ::log::Level::Debug => Level::Debug,
                ::log::Level::Trace => Level::Trace,
            };
            log::write(level, &record.args().to_string());
        }

        fn flush(&self) {}
    }

    // Refused only where a logger is set already, which is this one.
    if ::log::set_logger(&Gateway).is_ok() {
        ::log::set_max_level(::log::LevelFilter::Trace);
    }
}
