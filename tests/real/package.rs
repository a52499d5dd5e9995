//! The Debian package on booted hosts: installed, configured, upgraded and removed as an operator
//! does it, with the daemon as a user of its own.

mod hardening;
mod life;
mod manual;
mod rights;
mod secrets;
