// Package report turns what the rounds of a run measured into the lines that a
// run prints, and these into the tables of docs/performance.md.
package report
