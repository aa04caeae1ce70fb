// Package atomicfile replaces a file so that whoever reads it sees the old
// bytes or the new ones, whole, and so that the new ones survive a power cut
// once Write has returned.
//
// It stands on os.Root, which keeps every step in the one directory that was
// opened, whatever happens to the path meanwhile. It imports the standard
// library only; any package may import it.
//
//	temp file in the same directory ─► write, chmod, fsync ─► rename ─► fsync the directory
//
// A crash before the rename leaves the old file and a hidden temp file, which
// Sweep removes; a crash after it leaves the new file.
package atomicfile
