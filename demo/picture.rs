//! Draws what a terminal shows: text with its colours on stdin, an SVG image on stdout.
#![allow(
    clippy::print_stdout,
    reason = "the image is the output of this program"
)]

use std::io;

use anstyle_svg::Term;

/// The narrowest image, in pixels. It has room for the longest line of the demo.
const WIDTH: usize = 860;

fn main() -> io::Result<()> {
    let text = io::read_to_string(io::stdin().lock())?;
    print!("{}", Term::new().min_width_px(WIDTH).render_svg(&text));
    Ok(())
}
