// Package syntax says what a single text of a configuration has to look like:
// names, paths, modes, URLs, addresses. Each function judges the text by itself,
// without the rest of the file, the host or the network, and its error says how to
// mend it; what settings say about each other is judged in configs.
//
// Errors show the text, but for what may be a secret in it (ShownURL). It imports
// the standard library alone.
package syntax
