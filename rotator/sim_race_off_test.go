//go:build !race

package rotator

const simRace = false
