//! The custom resources of `rivven.io/v1alpha1`.
