// Package harden takes from this process what it does not need, so that
// somebody who gets code to run in it gets little more than the signatures he
// could have asked for.
//
//   - Process closes it to debuggers and cores, and to new privileges. It is the
//     first act of main.
//   - Confine closes everything but some files, folders and TCP ports to it,
//     with Landlock (landlock(7)). It comes once all is opened, and cannot be
//     taken back.
//   - Stacks tells what the goroutines do, as the runtime's dump would, but no
//     word of memory: no argument and no register, either of which can be a
//     part of a key.
//
// It is a leaf: it imports nothing of keyturn, and is the only user of
// go-landlock. What it does holds for the whole process, so tests run it in
// child processes.
package harden
