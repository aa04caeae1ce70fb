//go:build !crashpoints

package crashpoint

// Here marks a place at which a test may crash the process. In this build
// nothing happens.
func Here(string) {}
