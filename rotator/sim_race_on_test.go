//go:build race

package rotator

// simRace says that the race detector makes everything ten times slower.
const simRace = true
