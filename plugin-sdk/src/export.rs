//! The export macro and what it expands to.

use std::cell::OnceCell;

use crate::{Plugin, Reason};

/// Makes a component of a [`Plugin`]: exports its life cycle and the roles named, which it must implement.
///
/// ```
/// # use sluicegate_plugin::{Failure, Filter, Message, Plugin, Reason, Transform, Verdict, Draft};
/// # struct Both;
/// # impl Plugin for Both {
/// #     type Config = ();
/// #     fn config_schema() -> String { String::new() }
/// #     fn configure((): ()) -> Result<Self, Vec<Reason>> { Ok(Self) }
/// # }
/// # impl Filter for Both {
/// #     fn filter(&self, _: &Message) -> Result<Verdict, Failure> { Ok(Verdict::Keep) }
/// # }
/// # impl Transform for Both {
/// #     fn transform(&self, message: &Message) -> Result<Vec<Draft>, Failure> { Ok(vec![message.draft()]) }
/// # }
/// sluicegate_plugin::export!(Both: Filter + Transform);
/// ```
///
/// Once in a crate. Natively it only checks that the traits are implemented.
#[macro_export]
macro_rules! export {
    ($plugin:ty: $first:ident $(+ $more:ident)*) => {
        $crate::__export!($plugin, $first $($more)*);
    };
}

/// See [`export!`].
#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    ($plugin:ty, $($role:ident)+) => {
        const _: () = {
            $({
                const fn implements<P: $crate::$role>() {}
                implements::<$plugin>();
            })+
        };

        #[cfg(target_family = "wasm")]
        #[allow(unsafe_code, reason = "the bindings' exported functions are unsafe to call, as any foreign function")]
        const _: () = {
            ::std::thread_local! {
                static PLUGIN: $crate::__private::Slot<$plugin> = const { $crate::__private::Slot::new() };
            }

            struct Component;

            impl $crate::__private::lifecycle::Guest for Component {
                fn config_schema() -> ::std::string::String {
                    <$plugin as $crate::Plugin>::config_schema()
                }

                fn configure(config: ::std::string::String) -> ::core::result::Result<(), ::std::vec::Vec<$crate::Reason>> {
                    PLUGIN.with(|slot| slot.configure(&config))
                }
            }
            $crate::__private::lifecycle::export_lifecycle!(Component);

            $($crate::__export_role!($role for $plugin, Component, PLUGIN);)+
        };
    };
}

/// One role's exports; see [`export!`].
#[doc(hidden)]
#[macro_export]
macro_rules! __export_role {
    (Filter for $plugin:ty, $component:ident, $slot:ident) => {
        impl $crate::__private::filtering::Guest for $component {
            fn filter(message: &$crate::Message) -> ::core::result::Result<$crate::Verdict, $crate::Failure> {
                $slot.with(|slot| $crate::Filter::filter(slot.get(), message))
            }
        }
        $crate::__private::filtering::export_filtering!($component);
    };
    (Transform for $plugin:ty, $component:ident, $slot:ident) => {
        impl $crate::__private::transforming::Guest for $component {
            fn transform(
                message: &$crate::Message,
            ) -> ::core::result::Result<::std::vec::Vec<$crate::Draft>, $crate::Failure> {
                $slot.with(|slot| $crate::Transform::transform(slot.get(), message))
            }
        }
        $crate::__private::transforming::export_transforming!($component);
    };
    (Router for $plugin:ty, $component:ident, $slot:ident) => {
        impl $crate::__private::routing::Guest for $component {
            fn route(
                message: &$crate::Message,
            ) -> ::core::result::Result<::std::vec::Vec<$crate::Destination>, $crate::Failure> {
                $slot.with(|slot| $crate::Router::route(slot.get(), message))
            }
        }
        $crate::__private::routing::export_routing!($component);
    };
}

/// Where a component keeps its configured plugin.
#[derive(Debug)]
pub struct Slot<P>(OnceCell<P>);

impl<P: Plugin> Slot<P> {
    /// An empty slot.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "a const function, for a static; a default would not be one")]
    pub const fn new() -> Self {
        Self(OnceCell::new())
    }

    /// Fills the slot.
    ///
    /// # Errors
    /// The mistakes of the configuration, or that the plugin has one already.
    pub fn configure(&self, config: &str) -> Result<(), Vec<Reason>> {
        log_panics();
        let plugin = P::configure(crate::configuration::parse(config).map_err(|reason| vec![reason])?)?;
        self.0.set(plugin).map_err(|_| vec![Reason::new("already_configured", "configure was called twice")])
    }

    /// The plugin.
    ///
    /// # Panics
    /// If it was never configured: the gateway configures before the first message, so this is a mistake of the gateway's.
    pub fn get(&self) -> &P {
        match self.0.get() {
            Some(plugin) => plugin,
            None => panic!("the plugin was called before it was configured"),
        }
    }
}

/// A panic ends as a trap, whose backtrace says where but not why: the log gets the message. Nothing of stderr is seen.
fn log_panics() {
    #[cfg(target_family = "wasm")]
    std::panic::set_hook(Box::new(|panic| crate::log::error(panic.to_string())));
}
