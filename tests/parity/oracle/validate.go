package main

import (
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/core"
	corev1 "k8s.io/kubernetes/pkg/apis/core/v1"
	"k8s.io/kubernetes/pkg/apis/core/validation"
)

// validate refuses a document with objects that the API server would not store: what a scheduler
// makes of them proves nothing. Statuses are left out, kubelets write them.
func validate(doc *document) error {
	for _, pod := range append(slices.Clone(doc.Pods), doc.Pod) {
		if err := validatePod(pod); err != nil {
			return err
		}
	}
	for _, node := range doc.Nodes {
		internal := &core.Node{}
		if err := corev1.Convert_v1_Node_To_core_Node(node, internal, nil); err != nil {
			return err
		}
		if errs := validation.ValidateNode(internal); len(errs) > 0 {
			return fmt.Errorf("node %s: %w", node.Name, errs.ToAggregate())
		}
	}
	return nil
}

func validatePod(pod *v1.Pod) error {
	stored := pod.DeepCopy()
	if stored.Namespace == "" {
		stored.Namespace = metav1.NamespaceDefault
	}
	corev1.SetObjectDefaults_Pod(stored)
	internal := &core.Pod{}
	if err := corev1.Convert_v1_Pod_To_core_Pod(stored, internal, nil); err != nil {
		return err
	}
	// As podStrategy.Validate does (pkg/registry/core/pod/strategy.go).
	options := podutil.GetValidationOptionsFromPodSpecAndMeta(&internal.Spec, nil, &internal.ObjectMeta, nil)
	options.ResourceIsPod = true
	if errs := validation.ValidatePodCreate(internal, options); len(errs) > 0 {
		return fmt.Errorf("pod %s: %w", pod.Name, errs.ToAggregate())
	}
	return nil
}
