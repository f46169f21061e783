"""The Spanish texts of the report, by the English ones in the code; see `spanish.py`."""

SECTIONS = {
    "{title} - flaxbert report": "{title} - informe de flaxbert",
    "Training run of {model}, evaluated on {data}": "Entrenamiento de {model}, evaluado con {data}",
    "Evaluation of {model}, evaluated on {data}": "Evaluación de {model} con {data}",
    "{model}, evaluated on {data}": "{model}, evaluado con {data}",
    "{share} of {data}, held out": "{share} de {data}, reservado",
    "no data": "ningún dato",
    "Contents": "Contenido",
    "In words": "En pocas palabras",
    "Metrics": "Métricas",
    "Training": "Entrenamiento",
    "Predictions": "Predicciones",
    "Calibration": "Calibración",
    "Slices": "Subgrupos",
    "Most wrong predictions": "Peores predicciones",
    "Most doubtful predictions": "Predicciones más dudosas",
    "Likely label errors": "Probables errores de etiquetado",
    "Data and speed": "Datos y velocidad",
    "How to repeat it": "Cómo repetirlo",
    "All about this run:": "Todo sobre este entrenamiento:",
    "Hints": "Consejos",
}

HINTS = {
    "Only 1 example was evaluated: the metrics are rough estimates.": "Solo se evaluó 1 ejemplo: "
    "las métricas son estimaciones muy imprecisas.",
    "Only {n} examples were evaluated: the metrics are rough estimates.": "Solo se evaluaron {n} "
    "ejemplos: las métricas son estimaciones imprecisas.",
    "{metric} {value} is not clearly better than a baseline that ignores the texts ({reached}: "
    "{baseline}).": "{metric} {value} no es claramente mejor que responder sin leer los textos "
    "({reached}: {baseline}).",
    "Probabilities are too high (expected calibration error {error}).": "Las probabilidades "
    "son demasiado altas (error de calibración esperado {error}).",
    "Probabilities are too low (expected calibration error {error}).": "Las probabilidades "
    "son demasiado bajas (error de calibración esperado {error}).",
    "The loss on the evaluation data was lowest at step {step} ({lowest}), and is {last} now: the "
    "model learns the training data by heart.": "La pérdida en los datos de evaluación fue mínima "
    "en el paso {step} ({lowest}) y al final es {last}: el modelo se aprende de memoria los datos "
    "de entrenamiento (sobreajuste).",
    "Try fewer epochs, or train.keep_best to export the best weights.": "Prueba con menos épocas, "
    "o con train.keep_best para exportar los mejores pesos.",
    "The exported weights are the best ones (train.keep_best).": "Se exportaron los mejores pesos "
    "(train.keep_best).",
    "The loss on the training data did not fall. Try another optim.learning_rate (2e-5 to 5e-5 "
    "are usual for BERT) or more epochs, and check that the labels fit the texts (flaxbert "
    "lint).": "La pérdida en los datos de entrenamiento no bajó. Prueba con otra tasa de "
    "aprendizaje, optim.learning_rate (con BERT lo habitual es de 2e-5 a 5e-5), o con más épocas, "
    "y revisa que las etiquetas correspondan a los textos (flaxbert lint).",
    "The loss on the evaluation data was still falling at the end. Try more epochs "
    "(train.epochs).": "La pérdida en los datos de evaluación aún bajaba al final. Prueba con más "
    "épocas (train.epochs).",
    "{cut} of {count} texts of data.{name} lost text to data.max_length={length}.": "{cut} de "
    "{count} textos de data.{name} se recortaron a data.max_length={length}.",
    "Try a larger one.": "Prueba con un valor mayor.",
    "Try a larger one, or options.long_texts=windows.": "Prueba con un valor mayor, o con "
    "options.long_texts=windows.",
}

METRICS = {
    "Final evaluation": "Evaluación final",
    "baseline": "línea base",
    "{metric} of the baseline": "{metric} de la línea base",
    "Intervals are Wilson's for accuracy, else from resampling the examples 1,000 times. They say "
    "how much a number would vary with other examples, not with another seed. Baseline: "
    "{baseline}.": "Los intervalos son los de Wilson para accuracy; los demás se obtienen al "
    "remuestrear los ejemplos mil veces. Indican cuánto variaría un número con otros ejemplos, no "
    "con otra semilla. Línea base: {baseline}.",
    "always the most frequent label, {label!r}": "siempre la etiqueta más frecuente, «{label}»",
    "always the most frequent tag": "siempre la etiqueta más frecuente",
    "always the most frequent set of labels ({labels})": "siempre el conjunto de etiquetas más "
    "frecuente ({labels})",
    "none": "ninguna",
    "always choice {n}": "siempre la opción {n}",
    "always the mean of the labels": "siempre la media de las etiquetas",
    "no entities": "ninguna entidad",
    "never an answer": "ninguna respuesta",
    "of {n} examples have an error": "de {n} ejemplos tienen un error",
    "training examples": "ejemplos de entrenamiento",
    "of training, without compiling": "de entrenamiento, sin compilar",
    "slice": "subgrupo",
    "examples": "ejemplos",
    "{metric} of each slice": "{metric} de cada subgrupo",
    "The {shown} largest of {n}.": "Los {shown} mayores de {n}.",
}

CURVES = {
    "Loss": "Pérdida",
    "training data": "datos de entrenamiento",
    "evaluation data": "datos de evaluación",
    "Metrics of the evaluation data": "Métricas de los datos de evaluación",
    "Learning rate": "Tasa de aprendizaje",
    "learning rate": "tasa de aprendizaje",
    "Norm of the gradient": "Norma del gradiente",
    "all layers": "todas las capas",
    "first layer": "primera capa",
    "Examples per second": "Ejemplos por segundo",
    "speed": "velocidad",
    "{name} from {first} to {last}": "{name} de {first} a {last}",
    "{value}, interval {low} to {high}": "{value}, intervalo de {low} a {high}",
    ", baseline {value}": ", línea base {value}",
    "{y} against {x}, {shown} of {n} examples.": "{y} frente a {x}, {shown} de {n} ejemplos.",
    "Expected calibration error {error:.3f} ({bins} bins). Probabilities are {excess:.3f} higher "
    "than the share of {outcome} on average.": "Error de calibración esperado {error:.3f} ({bins} "
    "tramos). En promedio, las probabilidades superan en {excess:.3f} la proporción de "
    "{outcome}.",
    "Expected calibration error {error:.3f} ({bins} bins). Probabilities are {excess:.3f} lower "
    "than the share of {outcome} on average.": "Error de calibración esperado {error:.3f} ({bins} "
    "tramos). En promedio, las probabilidades están {excess:.3f} por debajo de la proporción "
    "de {outcome}.",
    "A bar at the dashed diagonal is calibrated; below it, probabilities are too high. The "
    "horizontal mark is the mean probability of the bin, and darker bars have more "
    "predictions.": "Una barra que llega a la diagonal discontinua está calibrada; si queda por "
    "debajo, las probabilidades son demasiado altas. La marca horizontal es la probabilidad media "
    "del tramo, y las barras más oscuras tienen más predicciones.",
    "Share of {outcome} by probability": "Proporción de {outcome} según la probabilidad",
    "probability {low:.1f} to {high:.1f}: {count} predictions, {outcome}: {share}": "probabilidad "
    "de {low:.1f} a {high:.1f}: {count} predicciones, {outcome}: {share}",
    "{low:.1f} to {high:.1f}: {share} of {count}": "{low:.1f} a {high:.1f}: {share} de {count}",
    "right predictions": "aciertos",
    "texts that have the label": "textos que tienen la etiqueta",
    "right tags of words": "palabras con la etiqueta correcta",
}

PREDICTIONS = {
    "Confusion matrix: rows are labels, columns predictions": "Matriz de confusión: las filas son "
    "las etiquetas, y las columnas, las predicciones",
    "label ↓ predicted →": "etiqueta ↓ predicción →",
    "The {shown} of {n} labels with most errors.": "Las {shown} etiquetas con más errores, de {n}.",
    "Scores of each label": "Resultados de cada etiqueta",
    "precision": "precisión",
    "recall": "exhaustividad (recall)",
    "The {shown} most frequent of {n}.": "Las {shown} más frecuentes de {n}.",
    "Most frequent confusions": "Confusiones más frecuentes",
    "of the label": "de la etiqueta",
    "its probability": "su probabilidad",
    "right choice": "opción correcta",
    "Predicted numbers and labels": "Números predichos y etiquetas",
    "{shown} of {n} examples, at equal distances in the file.": "{shown} de {n} ejemplos, a "
    "intervalos iguales del archivo.",
    "with {label}": "con {label}",
    "without {label}": "sin {label}",
    # entities and tags
    "Scores of each type of entity": "Resultados de cada tipo de entidad",
    "Errors by kind": "Tipos de error",
    "entities": "entidades",
    "of all errors": "de todos los errores",
    "no entity": "ninguna entidad",
    "{type}, other words": "{type}, otras palabras",
    "sentence": "oración",
    "missed": "omitida",
    "wrong": "incorrecta",
    "words": "palabras",
    "Each word counts.": "Se cuenta palabra por palabra.",
    "({n} words, shortened)": "({n} palabras, abreviado)",
    "({n} characters, shortened)": "({n} caracteres, abreviado)",
    # answers
    "1 question with an answer": "1 pregunta con respuesta",
    "{n} questions with an answer": "{n} preguntas con respuesta",
    "1 question without an answer": "1 pregunta sin respuesta",
    "{n} questions without an answer": "{n} preguntas sin respuesta",
    "exactly right": "exacta",
    "partly right (some words)": "correcta en parte (algunas palabras)",
    "no answer given": "no dio respuesta",
    "right: no answer given": "correcto: no dio respuesta",
    "wrong: an answer given": "incorrecto: dio una respuesta",
    "outcome": "resultado",
    "questions": "preguntas",
    "share": "proporción",
    "mean F1": "F1 medio",
    "question and text": "pregunta y texto",
    "no answer": "sin respuesta",
    "both": "ambas",
}

EXAMPLES = {
    "Most wrong": "Las peores",
    "The {shown} of {wrong} with most {measure}, of {n} evaluated examples. Long texts are "
    "shortened.": "Las {shown} de {wrong} con más {measure}, de {n} ejemplos evaluados. Los "
    "textos largos se abrevian.",
    "loss": "pérdida",
    "errors": "errores",
    "absolute error": "error absoluto",
    "entities missed or wrong": "entidades omitidas o incorrectas",
    "wrong tags": "etiquetas incorrectas",
    "missing F1": "F1 faltante",
    "The predictions of this task have no probabilities, so the most doubtful ones are not "
    "listed. Wrong labels are most likely among these.": "Las predicciones de esta tarea no "
    "tienen probabilidades, así que no se listan las más dudosas. Si hay etiquetas incorrectas, "
    "lo más probable es que estén entre estas.",
    "Most doubtful": "Las más dudosas",
    "Right or wrong, the one where {doubt}.": "Acertada o no, aquella en la que {doubt}.",
    "Right or wrong, the {n} where {doubt}.": "Acertadas o no, las {n} en las que {doubt}.",
    "the two most probable labels are closest": "las dos etiquetas más probables "
    "están más próximas",
    "the two most probable choices are closest": "las dos opciones más probables "
    "están más próximas",
    "a label's probability is closest to its threshold": "la probabilidad de una etiqueta está "
    "más cerca de su umbral",
    "the tag of a word is least probable": "la etiqueta de una palabra es menos probable",
    "the score is lowest": "la puntuación es más baja",
    "the choice between an answer and none is closest": "la decisión entre dar una respuesta o "
    "ninguna está más reñida",
    "likely label": "etiqueta probable",
    "place": "lugar",
    "The model confidently contradicts the label of {n} of {count} evaluated examples.": "El "
    "modelo contradice con mucha confianza la etiqueta de {n} de {count} ejemplos evaluados.",
    "The model confidently contradicts the label of {n} of {count} evaluated examples, and the "
    "first {shown} are shown.": "El modelo contradice con mucha confianza la "
    "etiqueta de {n} de {count} ejemplos evaluados; se muestran los {shown} primeros.",
    "Read them: some labels are wrong, and others are right but hard; the better the model, the "
    "fewer of those. This is the evaluation data. To check the training file in the same way, "
    "train for a single epoch, before wrong labels are learned by heart, and evaluate on that "
    "file: --mode=eval --config.data.eval=FILE.": "Léelos: algunas etiquetas están mal, y otras "
    "están bien pero son difíciles; cuanto mejor es el modelo, menos hay de estas. Son los datos "
    "de evaluación. Para revisar igual el archivo de entrenamiento, entrena una sola época, antes "
    "de que el modelo se aprenda de memoria las etiquetas incorrectas, y evalúa con ese archivo: "
    "--mode=eval --config.data.eval=ARCHIVO.",
}

DETAILS = {
    "Data sets": "Conjuntos de datos",
    "data": "datos",
    "source": "origen",
    "sequences": "secuencias",
    "cut": "recortados",
    "malformed": "mal formados",
    "out of reach": "inalcanzables",
    "devices": "dispositivos",
    "padding in training batches": "relleno en los lotes de entrenamiento",
    "training": "entrenamiento",
    "examples per second": "ejemplos por segundo",
    "tokens per second": "tokens por segundo",
    "time of a step": "tiempo de un paso",
    "last evaluation": "última evaluación",
    "compiling": "compilación",
    "steps": "pasos",
    "skipped steps": "pasos omitidos",
    "Compiled programs": "Programas compilados",
    "function": "función",
    "shape": "forma",
    "from": "origen",
    "cache": "caché",
    "compiled": "compilado",
    "The {shown} longest of {n}; compiles.jsonl has all.": "Los {shown} más largos de {n}; "
    "compiles.jsonl los tiene todos.",
    "Command": "Comando",
    "Configuration, as the difference from the defaults": "Configuración: lo que difiere de los "
    "valores predeterminados",
    "key": "clave",
    "default": "predeterminado",
    "All other values are the defaults; {file} has all.": "Los demás valores son los "
    "predeterminados; {file} los tiene todos.",
    "Fingerprints of the data": "Huellas de los datos",
    "fingerprint": "huella",
    "examples, {name}": "ejemplos, {name}",
    "hub commit, {name}": "commit del hub, {name}",
    "finished": "terminado",
}

COMPARISON = {
    "{n} runs compared": "Comparación de {n} entrenamientos",
    "Same examples": "Los mismos ejemplos",
    "Curves": "Curvas",
    "Settings that differ": "Ajustes que difieren",
    "Speed": "Velocidad",
    "Final evaluations": "Evaluaciones finales",
    "In parentheses: 95 % intervals. ✓ marks the best value, however small the lead.": "Entre "
    "paréntesis, intervalos del 95 %. ✓ marca el mejor valor, por pequeña que sea la ventaja.",
    "The runs were evaluated on different examples, or their labels are not stored.": "Los "
    "entrenamientos se evaluaron con ejemplos distintos, o sus etiquetas no están guardadas.",
    "Right and wrong, example by example": "Aciertos y errores, ejemplo a ejemplo",
    "runs": "entrenamientos",
    "only the first is right": "solo acierta el primero",
    "only the second is right": "solo acierta el segundo",
    "equally right": "iguales",
    "difference": "diferencia",
    "a clear difference": "una diferencia clara",
    "may be chance": "puede deberse al azar",
    "p: probability of a difference as large as this between two equally good models on other "
    "examples of the same kind (exact test of McNemar 1947). It does not cover the seeds.": "p: "
    "probabilidad de una diferencia al menos tan grande entre dos modelos igual de buenos con "
    "otros ejemplos del mismo tipo (prueba exacta de McNemar, 1947). No tiene en cuenta las "
    "semillas.",
    "Loss on the training data": "Pérdida en los datos de entrenamiento",
    "{metric} on the evaluation data": "{metric} en los datos de evaluación",
    "Configuration": "Configuración",
    "Timings": "Tiempos",
    "training, s": "entrenamiento, s",
    "compiling, s": "compilación, s",
    "share of padding": "proporción de relleno",
    # the rows of the first batch
    "{sequences} sequences in {rows} rows of {length} tokens; {share} is padding.": "{sequences} "
    "secuencias en {rows} filas de {length} tokens; el {share} es relleno.",
    "These are the first of {n} rows.": "Son las primeras de {n} filas.",
    "Rows of the first training batch": "Filas del primer lote de entrenamiento",
}

REPORT = SECTIONS | HINTS | METRICS | CURVES | PREDICTIONS | EXAMPLES | DETAILS | COMPARISON
"""All of them."""
