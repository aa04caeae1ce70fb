// Package request reads what is sent to a sign socket: one request, or a batch
// of them. It says what was asked for, or what is wrong with the text; who may
// have it is another's business (package profile).
//
//	Parse ──────► the plain reader (one pass) ── not sure ──► strictjson ─► Entry: Request | Problem
//	ParseBatch ─► the same, of all entries ───── not sure ──► strictjson ─► each entry by Parse
//
// There are two readers of one language. The general one decides what is right;
// the plain one is there for speed, takes a part of it only, and never refuses:
// what it does not know for certain it leaves to the other. Tests hold the two
// together on requests made at random and on those of a fuzzer.
//
// It may import api and internal/strictjson, and nothing else of keyturn.
package request
