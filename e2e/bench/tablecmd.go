package main

import (
	"flag"
	"io"
	"os"

	"github.com/keyturn/keyturn/e2e/bench/report"
)

// tableCommand writes what a run printed into the marked block of a document.
func tableCommand(args []string) error {
	fs := flag.NewFlagSet("bench table", flag.ContinueOnError)
	in := fs.String("in", "", "what `make bench` printed; standard input without it")
	doc := fs.String("doc", "", "document with the block; standard output without it")
	allocations := fs.Bool("allocations", false, "the input is of `go test -bench Socket`")
	remark := fs.String("note", "", "a sentence on the circumstances")
	if err := fs.Parse(args); err != nil {
		return err
	}
	source := io.Reader(os.Stdin)
	if *in != "" {
		f, err := os.Open(*in)
		if err != nil {
			return err
		}
		defer f.Close()
		source = f
	}
	block, text, err := "bench", "", error(nil)
	if *allocations {
		block = "allocations"
		text, err = report.Allocations(source)
	} else {
		var lines report.Lines
		lines, err = report.Read(source)
		text = lines.Markdown(report.Machine(), *remark)
	}
	if err != nil {
		return err
	}
	if *doc == "" {
		_, err := io.WriteString(os.Stdout, text)
		return err
	}
	return report.ReplaceBlock(*doc, block, text)
}
