use std::collections::HashSet;

use super::*;

#[test]
fn codes_are_unique_and_their_statuses_are_errors() {
    let names: HashSet<_> = ProblemCode::ALL.iter().map(|code| code.name()).collect();
    assert_eq!(names.len(), ProblemCode::ALL.len());
    for code in ProblemCode::ALL {
        assert!(code.status().is_client_error() || code.status().is_server_error(), "{code:?}");
        assert!(code.name().starts_with("MQ_"), "{code:?}");
    }
}

#[test]
fn a_document_has_the_members_of_rfc_9457_and_extensions_cannot_replace_them() {
    let problem = ProblemDetails::new(ProblemCode::SchemaViolation, "bad")
        .with_errors([PointedError::in_body("/a", "is no number"), PointedError::in_header("ce-id", "is empty")])
        .with_retry_after(3)
        .with("status", 200)
        .with("class", "schema");
    assert_eq!(
        problem.to_json(),
        json!({
            "type": "urn:sluicegate:problem:schema-violation",
            "title": "The message violates its schema",
            "status": 422,
            "detail": "bad",
            "code": "MQ_SCHEMA_VIOLATION",
            "errors": [
                { "pointer": "/a", "detail": "is no number" },
                { "header": "ce-id", "detail": "is empty" },
            ],
            "retryAfter": 3,
            "class": "schema",
        })
    );
    let response = problem.into_response();
    assert_eq!(response.status(), 422);
    assert_eq!(response.headers()[CONTENT_TYPE], PROBLEM_JSON);
    assert_eq!(response.headers()[RETRY_AFTER], "3");
}
#[test]
fn a_document_lists_a_limited_number_of_errors() {
    let errors = (0..MAX_LISTED_ERRORS + 7).map(|i| PointedError::in_body(format!("/{i}"), "is bad"));
    let document = ProblemDetails::new(ProblemCode::InvalidEvent, "bad").with_errors(errors).to_json();
    assert_eq!(document["errors"].as_array().map(Vec::len), Some(MAX_LISTED_ERRORS));
    assert_eq!(document["errorsOmitted"], 7);
}
