// Package raw signs and does nothing else: what the processors of this machine
// can do in the daemon's own mode, which is the measure for everything that the
// daemon puts around a signature.
package raw
