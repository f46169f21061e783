"""The texts of the page in every language, and an example for every kind of input."""

from collections.abc import Mapping

MESSAGES: Mapping[str, Mapping[str, str]] = {
    "en": {
        "name": "English",
        "language": "Language",
        "try": "Try the model",
        "text": "Text",
        "pair": "Second text",
        "question": "Question",
        "context": "Text that holds the answer",
        "prefix": "Beginning of every choice",
        "choices": "Choices, one per line",
        "predict": "Predict",
        "clear": "Clear",
        "example": "Example",
        "show_tokens": "Show tokens",
        "result": "Result",
        "tokens": "Tokens",
        "tokens_note": "What the model reads. ## continues a word. Point at a token for its "
        "number.",
        "window": "Part {n}",
        "cut": "The text is too long for the model, so its end was left out.",
        "no_labels": "No label reaches its threshold.",
        "no_answer": "The text does not hold the answer.",
        "no_entities": "No entities.",
        "other_answers": "Possible answers",
        "more": "Show all {n}",
        "running": "Computing …",
        "took": "{ms} ms",
        "failed": "The server cannot be reached.",
        "shortcut": "Ctrl + Enter",
        "schema": "API",
        "metrics": "Metrics",
        "no_script": "This page needs JavaScript. The API works without it.",
        "classification": "Classification",
        "multi_label": "Several labels",
        "regression": "Number",
        "multiple_choice": "Multiple choice",
        "question_answering": "Question answering",
        "token_classification": "Words and entities",
    },
    "es": {
        "name": "Español",
        "language": "Idioma",
        "try": "Prueba el modelo",
        "text": "Texto",
        "pair": "Segundo texto",
        "question": "Pregunta",
        "context": "Texto que contiene la respuesta",
        "prefix": "Comienzo de cada opción",
        "choices": "Opciones, una por línea",
        "predict": "Predecir",
        "clear": "Borrar",
        "example": "Ejemplo",
        "show_tokens": "Mostrar tokens",
        "result": "Resultado",
        "tokens": "Tokens",
        "tokens_note": "Lo que lee el modelo. ## continúa una palabra. Señala un token para ver su "
        "número.",
        "window": "Parte {n}",
        "cut": "El texto es demasiado largo para el modelo y se omitió el final.",
        "no_labels": "Ninguna etiqueta alcanza su umbral.",
        "no_answer": "El texto no contiene la respuesta.",
        "no_entities": "No hay entidades.",
        "other_answers": "Respuestas posibles",
        "more": "Mostrar las {n}",
        "running": "Calculando …",
        "took": "{ms} ms",
        "failed": "No se puede conectar con el servidor.",
        "shortcut": "Ctrl + Intro",
        "schema": "API",
        "metrics": "Métricas",
        "no_script": "Esta página necesita JavaScript. La API funciona sin él.",
        "classification": "Clasificación",
        "multi_label": "Varias etiquetas",
        "regression": "Número",
        "multiple_choice": "Opción múltiple",
        "question_answering": "Respuesta a preguntas",
        "token_classification": "Palabras y entidades",
    },
}
"""{language: {key: text}}; the first language is the default."""

EXAMPLES: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "en": {
        "text": {"text": "The food was great, and the waiter was very friendly."},
        "pair": {"text": "A man plays the guitar.", "pair": "Someone makes music."},
        "question": {
            "question": "When was the lighthouse built?",
            "context": "The lighthouse on the northern cape was built in 1871, after two ships had "
            "been lost in the same winter. Its light can be seen from thirty kilometers away. "
            "Since 1984 nobody lives there.",
        },
        "sentence": {"text": "Marie Curie was born in Warsaw and moved to Paris in 1891."},
        "choices": {
            "question": "Anna opens her umbrella because",
            "prefix": "it is",
            "choices": "raining\nlate\nvery quiet",
        },
    },
    "es": {
        "text": {"text": "La comida estaba muy rica y el camarero fue muy amable."},
        "pair": {"text": "Un hombre toca la guitarra.", "pair": "Alguien hace música."},
        "question": {
            "question": "¿Cuándo se construyó el faro?",
            "context": "El faro del cabo norte se construyó en 1871, después de que dos barcos "
            "naufragaran el mismo invierno. Su luz se ve a treinta kilómetros. Desde 1984 no vive "
            "nadie allí.",
        },
        "sentence": {"text": "Gabriel García Márquez nació en Aracataca y vivió en México."},
        "choices": {
            "question": "Ana abre el paraguas porque",
            "prefix": "está",
            "choices": "lloviendo\ntarde\nmuy tranquilo",
        },
    },
}
"""{language: {kind of input: {field: text}}}."""
