// Package verify is the auditor of package audit's logs. It reads files back,
// whoever wrote or kept them, and names what was done to them: with the file,
// the line and the record.
//
// It stands apart from audit, since the two have different masters. The daemon
// that writes must not wait, and trusts its own file; an auditor trusts nothing
// that stands in a file but what the chain and the heads kept elsewhere bear
// out, and has all the time that he needs. What they share is the form of a
// record, its links and the anchors, and that is audit's.
//
//	files ─► InOrder ─► EachLine ─► a strand for each chain, of segments that follow ─► judged: damages, notes
//	                                 lines that are no records: holes                     ▲
//	                                               Known: anchors, and records to be held ┘
//
// What cannot be seen is said as well, in notes; docs/audit.md is about who can
// hide what. It imports audit, changes no file and starts no goroutine.
package verify
