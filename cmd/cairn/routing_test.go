package main

import (
	"cmp"
	"reflect"
	"strings"
	"testing"
	"time"
)

// What cairn up passes on to its nodes is what it was given: every flag of routing, each
// with another value than its default.
func TestRoutingFlagsAreHandedOn(t *testing.T) {
	var want costFlags
	v := reflect.ValueOf(&want).Elem()
	for i := range v.NumField() {
		switch f := v.Field(i).Addr().Interface().(type) {
		case *string:
			words := strings.Split(cmp.Or(v.Type().Field(i).Tag.Get("enum"), "word"), ",")
			*f = words[len(words)-1]
		case *int:
			*f = -1 - i
		case *float64:
			*f = 0.125 * float64(i+1)
		case *size:
			*f = size(1<<30 + i)
		case *time.Duration:
			*f = time.Duration(i+1) * time.Second
		default:
			t.Fatalf("%s is of a kind that args must learn", v.Type().Field(i).Name)
		}
	}
	got, err := nodeDefaults(append(want.args(), "--id", "n1")...)
	if err != nil || got.Cost != want {
		t.Errorf("got %+v, %v; want %+v", got.Cost, err, want)
	}
	if args := (costFlags{}).args(); len(args) != 0 {
		t.Errorf("flags that are not set are %q", args)
	}
}
