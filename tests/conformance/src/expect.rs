//! Refusals, word for word: clients have nothing else to tell errors apart.

use std::fmt::Debug;

use anyhow::{Result, bail, ensure};
use rivven_client::Error;

/// The broker refused with exactly this message.
pub fn refused<T: Debug>(answer: rivven_client::Result<T>, message: &str) -> Result<()> {
    let said = refusal(answer)?;
    ensure!(said == message, "refused with {said:?} and not {message:?}");
    Ok(())
}

/// The broker refused, and its message begins with this.
pub fn refused_with<T: Debug>(answer: rivven_client::Result<T>, prefix: &str) -> Result<()> {
    let said = refusal(answer)?;
    ensure!(said.starts_with(prefix), "refused with {said:?} and not {prefix:?}…");
    Ok(())
}

fn refusal<T: Debug>(answer: rivven_client::Result<T>) -> Result<String> {
    match answer {
        Err(Error::ServerError(said)) => Ok(said),
        Err(other) => Err(other.into()),
        Ok(answer) => bail!("not refused: {answer:?}"),
    }
}

/// What was found is what must be.
pub fn same<T: PartialEq + Debug>(what: &str, found: &T, expected: &T) -> Result<()> {
    ensure!(found == expected, "{what}: {found:?} and not {expected:?}");
    Ok(())
}
