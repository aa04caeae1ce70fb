// Package condition is the `when` of a profile: an expression in CEL
// (Common Expression Language) over what a token would say, who asks and what
// for. It is the only user of cel-go.
//
//	Compile (at load): parse ─► types ─► what CEL lets through and we do not ─► worst cost ─► program
//	Eval (a request):  claims read exactly ─► program, cost-limited ─► true | false | error
//
// Only true allows. An error (a claim that is not there, a kind that does not
// fit, a cost beyond the limit, a panic of the library) refuses as false does.
//
// What an expression sees has the names in members, and nothing else: no
// clock, no pid, no environment. A condition is a function of the request and
// its caller, so the same request gets the same answer tomorrow, and a test of
// it is a test of it.
//
// Numbers. A condition must not take one number for another, as a double
// takes 9007199254740993 for its neighbour. What a claim writes as 5, 5.0 or
// 5e0 is the int 5. One with a fraction is a double, and one that no int and
// no double can hold apart from its neighbours (beyond 64 bits, or a fraction
// beyond 2^53) is an error, whether or not the expression looks at it.
//
// Work is bounded twice. Claims are read up to so many values and so long a
// text; with these bounds the worst cost of an expression is known at load, and
// one that could be beyond reason (a loop within a loop) is refused there. At
// work a lower limit holds for what this request really costs, and loops end
// when their time is over.
package condition
