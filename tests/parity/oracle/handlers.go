package main

import (
	"context"
	"fmt"
	"reflect"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
)

// waitForHandlers returns when every event handler has seen every object that was there at the start.
//
// Plugins keep caches that handlers fill (volumes, claims). Scheduler.WaitForHandlersSync polls every
// 100 ms and knows only the scheduler's own handlers; client-go has a channel per handler, but shows
// it only to whoever registered it. So we look inside the informers, whose version go.mod pins.
func waitForHandlers(ctx context.Context, factory informers.SharedInformerFactory) error {
	all := field(reflect.ValueOf(factory), "informers").Interface().(map[reflect.Type]cache.SharedIndexInformer)
	for kind, informer := range all {
		listeners := field(field(unwrapped(informer), "processor"), "listeners")
		for _, key := range listeners.MapKeys() {
			select {
			case <-key.Interface().(cache.ResourceEventHandlerRegistration).HasSyncedChecker().Done():
			case <-ctx.Done():
				return fmt.Errorf("handlers of %v: %w", kind, ctx.Err())
			}
		}
	}
	return nil
}

// unwrapped is the informer behind the typed façades that factories return.
func unwrapped(informer cache.SharedIndexInformer) reflect.Value {
	v := reflect.ValueOf(informer)
	for {
		inner := v.Elem().FieldByName("SharedIndexInformer")
		if !inner.IsValid() {
			return v
		}
		v = inner.Elem()
	}
}

// field reads a private field of the struct that pointer points to.
func field(pointer reflect.Value, name string) reflect.Value {
	f := pointer.Elem().FieldByName(name)
	return reflect.NewAt(f.Type(), f.Addr().UnsafePointer()).Elem()
}
